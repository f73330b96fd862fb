//! Whole computations on a thread that shares products with others.

use burn::tensor::Device;

use super::products::products;
use super::with_products;
use crate::precision::Family;

/// Does `work` on one of the threads that products are shared by, and waits for it.
///
/// A product that is asked for from any other thread puts that thread to sleep and wakes it when it
/// is done, hundreds of times per token, and each time takes as long as a small product. From a
/// worker a product begins at once, and the other workers help.
///
/// GPUs tell streams of work apart by threads: for them it is done on this one.
pub fn on_workers<T: Send>(device: &Device, work: impl FnOnce() -> T + Send) -> T {
    let on_cpu = matches!(Family::of(device), Family::Cpu | Family::NdArray);
    if !on_cpu || rayon::current_thread_index().is_some() {
        return work();
    }
    let products = products();
    rayon::join(|| with_products(products, work), || ()).0
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use super::super::Products;
    use super::*;

    #[test]
    fn a_worker_computes_as_its_caller_would() {
        let device = Device::flex();
        let here = || (std::thread::current().id(), rayon::current_thread_index().is_some());
        let caller = here();
        let [outer, inner] = with_products(Products::Bf16, || {
            on_workers(&device, || {
                assert_eq!(products(), Products::Bf16);
                [here(), on_workers(&device, here)]
            })
        });
        assert_eq!(outer, inner);
        assert!(outer.1 && !caller.1 && outer.0 != caller.0);
        assert_eq!(on_workers(&device, products), Products::F32);
    }
}
