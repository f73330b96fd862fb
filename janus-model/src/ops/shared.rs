//! Results that several threads fill.

use std::mem::MaybeUninit;

/// A buffer while parallel pieces fill it, each its own elements.
#[derive(Clone, Copy)]
pub struct Shared(*mut f32);

// SAFETY: whoever shares it gives every piece its own elements.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Of a buffer that outlives all pieces.
    pub fn new(values: &mut [f32]) -> Self {
        Self(values.as_mut_ptr())
    }

    /// Of one that holds nothing yet, and is not read before it does.
    pub fn empty(values: &mut [MaybeUninit<f32>]) -> Self {
        Self(values.as_mut_ptr().cast())
    }

    /// Where element `index` lies.
    pub fn at(self, index: usize) -> *mut f32 {
        self.0.wrapping_add(index)
    }
}
