//! Memory that parallel pieces fill, and matrix products on parts of it.

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::TensorData;

use super::panels::Lines;
use super::tiles::{self, Sink, Way};
use crate::ops::products::{Products, products};

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

    /// Its rows.
    fn lines(self) -> Lines<'a> {
        Lines::wide(self.values, self.size, self.strides)
    }
}

/// `y = a·b`, or `y += a·b`, of factors rounded so. On this thread alone.
///
/// # Safety
/// `y` must be valid for the rows of `a` times the columns of `b`, and nobody else may use these
/// elements meanwhile.
pub unsafe fn product(products: Products, y: Sink, a: Matrix, b: Matrix) {
    let way = Way { half: products.rounded(), parallel: false };
    // SAFETY: the same contract.
    unsafe { multiply(y, a, b, way) }
}

/// As [`product`], on one thread or on all.
///
/// # Safety
/// As [`product`].
unsafe fn multiply(y: Sink, a: Matrix, b: Matrix, way: Way) {
    let ([rows, inner], [inner_b, columns]) = (a.size, b.size);
    assert_eq!(inner, inner_b, "product: widths differ");
    if rows == 0 || columns == 0 {
        return;
    }
    // SAFETY: the same contract.
    if unsafe { tiles::multiply(y, a.lines(), b.turned().lines(), way) } {
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
            y.at,
            1,
            y.stride as isize,
            y.add,
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
            if way.parallel { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None },
        );
    }
}

/// `a · b` of whole matrices, on all threads, each transposed first where `turned` says so.
///
/// Burn's own product does the same arithmetic, but fills its result with zeros on one thread
/// before, which for the sizes of training takes a sixth of the time, and copies what is turned.
pub fn whole_product(
    a: FloatTensor<Flex>,
    b: FloatTensor<Flex>,
    turned: [bool; 2],
) -> FloatTensor<Flex> {
    let [a, b] = [a, b].map(plain);
    let (left, right) = (matrix(&a, turned[0]), matrix(&b, turned[1]));
    let ([rows, inner], [_, columns]) = (left.size, right.size);
    if inner == 0 {
        return FloatTensor::<Flex>::from_data(TensorData::zeros::<f32, _>([rows, columns]));
    }
    let mut y = Vec::<f32>::with_capacity(rows * columns);
    // SAFETY: there is room for rows × columns; the product writes all of them without reading.
    unsafe {
        let sink = Sink { at: y.as_mut_ptr(), stride: columns, add: false };
        let way = Way { half: products().rounded(), parallel: true };
        multiply(sink, left, right, way);
        y.set_len(rows * columns);
    }
    FloatTensor::<Flex>::from_data(TensorData::new(y, [rows, columns]))
}

/// A tensor of two axes as a matrix, transposed or not.
fn matrix(x: &FloatTensor<Flex>, turned: bool) -> Matrix<'_> {
    let layout = x.layout();
    let size = [0, 1].map(|axis| layout.shape()[axis]);
    let strides = [0, 1].map(|axis| layout.strides()[axis].unsigned_abs());
    let matrix = Matrix::new(&x.storage::<f32>()[layout.start_offset()..], size, strides);
    if turned { matrix.turned() } else { matrix }
}

/// As it lies, unless it runs backwards.
fn plain(x: FloatTensor<Flex>) -> FloatTensor<Flex> {
    let backwards = x.layout().strides().iter().any(|stride| *stride < 0);
    if backwards { x.to_contiguous() } else { x }
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
