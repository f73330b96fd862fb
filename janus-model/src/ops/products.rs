//! How exact matrix products and convolutions are.

use std::cell::Cell;

use serde::{Deserialize, Serialize};

/// What factors of matrix products are rounded to before they meet; sums are f32 always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Products {
    /// Nothing.
    #[default]
    F32,
    /// bf16, where both are f32 or bf16 and the processor multiplies pairs of bf16 (AVX-512 BF16, or
    /// matrices of them: AMX), which makes it at least twice as fast; nothing elsewhere. A factor
    /// changes by up to 1/512 of itself. A few rows, as decoding has them, stay as they are.
    Bf16,
    /// The same, and a few rows of activations against weights in bf16, too: a step of many
    /// sequences takes two fifths less time, and its numbers are those of PyTorch in bf16 in kind.
    Bf16Steps,
}

impl Products {
    /// Whether many rows are rounded.
    pub fn rounded(self) -> bool {
        self != Self::F32
    }
}

thread_local! {
    static CURRENT: Cell<Products> = const { Cell::new(Products::F32) };
}

/// Whatever `work` computes on the CPU, called from this thread, is computed so.
///
/// What autocast is to PyTorch, but for products alone: everything else stays as it is.
pub fn with_products<T>(products: Products, work: impl FnOnce() -> T) -> T {
    /// Puts back what was, even when `work` panics.
    struct Before(Products);
    impl Drop for Before {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let _before = Before(CURRENT.replace(products));
    work()
}

/// What this thread computes with.
pub(super) fn products() -> Products {
    CURRENT.get()
}
