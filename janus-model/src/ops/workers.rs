//! Whole computations on a thread that shares products with others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use rayon::Yield;

use super::products::products;
use super::with_products;
use crate::precision::Family;

/// How long a worker that finds nothing to do looks for more.
const PATIENCE: Duration = Duration::from_millis(1);

/// Does `work` on one of the threads that products are shared by, and waits for it.
///
/// A product that is asked for from any other thread puts that thread to sleep and wakes it when it
/// is done, hundreds of times per token, and each time takes as long as a small product. From a
/// worker a product begins at once, and the other workers help.
///
/// The others stay awake meanwhile. Between two products of a step there is so little to do that
/// they would just fall asleep, and to wake one takes as long as a small product, too.
///
/// GPUs tell streams of work apart by threads: for them it is done on this one.
pub fn on_workers<T: Send>(device: &Device, work: impl FnOnce() -> T + Send) -> T {
    let on_cpu = matches!(Family::of(device), Family::Cpu | Family::NdArray);
    if !on_cpu || rayon::current_thread_index().is_some() {
        return work();
    }
    let products = products();
    let led = || {
        let end = AtTheEnd(Arc::default());
        let (done, this) = (end.0.clone(), rayon::current_thread_index());
        // Nobody waits for these: who is busy with something else comes too late, and leaves.
        rayon::spawn_broadcast(move |thread| {
            if Some(thread.index()) != this {
                lend_a_hand(&done);
            }
        });
        with_products(products, work)
    };
    rayon::join(led, || ()).0
}

/// Says that it is over, even when work panics.
struct AtTheEnd(Arc<AtomicBool>);

impl Drop for AtTheEnd {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Does pieces of work until it is over, or there was none for long.
fn lend_a_hand(done: &AtomicBool) {
    let mut last = Instant::now();
    while !done.load(Ordering::Acquire) {
        if rayon::yield_now() == Some(Yield::Executed) {
            last = Instant::now();
        } else if last.elapsed() > PATIENCE {
            return;
        } else {
            std::hint::spin_loop();
        }
    }
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
    #[test]
    fn nobody_waits_for_workers_that_are_busy() {
        use std::sync::mpsc::channel;
        let others = rayon::current_num_threads() - 1;
        let (started, has_started) = channel();
        let held: Vec<_> = (0..others)
            .map(|_| {
                let (started, (release, released)) = (started.clone(), channel::<()>());
                rayon::spawn(move || {
                    started.send(()).expect("the test waits");
                    released.recv().expect_err("nothing is ever sent");
                });
                release
            })
            .collect();
        (0..others).for_each(|_| has_started.recv().expect("all of them start"));
        // Would wait for ever, if it waited for the others.
        assert_eq!(on_workers(&Device::flex(), || 7), 7);
        drop(held);
    }
}
