//! Memory that parallel pieces fill, and matrix products on parts of it.

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;

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

    /// Where element `index` lies.
    pub fn at(self, index: usize) -> *mut f32 {
        self.0.wrapping_add(index)
    }
}

/// A matrix in memory, and the distance of its neighbours down and across.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    values: &'a [f32],
    size: [usize; 2],
    strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// `size` and `strides` are those of rows and columns.
    ///
    /// # Panics
    /// When the last element lies outside `values`.
    pub fn new(values: &'a [f32], size: [usize; 2], strides: [usize; 2]) -> Self {
        let [down, across] = [0, 1].map(|axis| size[axis].saturating_sub(1) * strides[axis]);
        let empty = size.contains(&0);
        assert!(empty || down + across < values.len(), "matrix: the last element lies outside");
        Self { values, size, strides }
    }

    /// Rows and columns exchanged.
    pub fn turned(self) -> Self {
        let ([a, b], [c, d]) = (self.size, self.strides);
        Self { size: [b, a], strides: [d, c], ..self }
    }
}

/// `y = a·b`, or `y += a·b`; rows of `y` are `stride` apart. On this thread alone.
///
/// # Safety
/// `y` must be valid for the rows of `a` times the columns of `b`, and nobody else may use these
/// elements meanwhile.
pub unsafe fn product(y: *mut f32, stride: usize, add: bool, a: Matrix, b: Matrix) {
    let ([rows, inner], [inner_b, columns]) = (a.size, b.size);
    assert_eq!(inner, inner_b, "product: widths differ");
    if rows == 0 || columns == 0 {
        return;
    }
    let [a_down, a_across] = a.strides.map(|stride| stride as isize);
    let [b_down, b_across] = b.strides.map(|stride| stride as isize);
    // SAFETY: `y` by the contract of this function, `a` and `b` were checked when made.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            y,
            1,
            stride as isize,
            add,
            a.values.as_ptr(),
            a_across,
            a_down,
            b.values.as_ptr(),
            b_across,
            b_down,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// `[rows, T, H, d]`, wherever its heads lie in memory, as long as each of them lies in one piece.
pub struct Heads {
    tensor: FloatTensor<Flex>,
    /// Rows, tokens, heads, width of a head.
    pub size: [usize; 4],
    strides: [usize; 3],
}

impl Heads {
    /// Copies only what has its elements apart.
    pub fn new(tensor: FloatTensor<Flex>) -> Self {
        let layout = tensor.layout();
        let apart = layout.strides()[3] != 1 || layout.strides().iter().any(|stride| *stride < 0);
        let tensor = if apart { tensor.to_contiguous() } else { tensor };
        let layout = tensor.layout();
        let size = [0, 1, 2, 3].map(|axis| layout.shape()[axis]);
        let strides = [0, 1, 2].map(|axis| layout.strides()[axis].unsigned_abs());
        Self { tensor, size, strides }
    }

    /// One head of one row: `[T, d]`.
    pub fn head(&self, row: usize, head: usize) -> Matrix<'_> {
        let [by_row, by_token, by_head] = self.strides;
        let first = self.tensor.layout().start_offset() + row * by_row + head * by_head;
        let values = &self.tensor.storage::<f32>()[first..];
        Matrix::new(values, [self.size[1], self.size[3]], [by_token, 1])
    }
}

impl Matrix<'_> {
    /// Row `index`, of a matrix whose rows lie in one piece.
    pub fn row(&self, index: usize) -> &[f32] {
        debug_assert_eq!(self.strides[1], 1);
        &self.values[index * self.strides[0]..][..self.size[1]]
    }

    /// Some of the rows.
    pub fn rows(self, rows: std::ops::Range<usize>) -> Self {
        let values = &self.values[(rows.start * self.strides[0]).min(self.values.len())..];
        Self::new(values, [rows.len(), self.size[1]], self.strides)
    }
}
