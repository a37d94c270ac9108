//! Many pending waits on one thread.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

/// A waker that counts its calls.
#[derive(Default)]
struct WakeCounter(AtomicUsize);

impl Wake for WakeCounter {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits that were polled once each, and are pending.
pub struct Waiting<F> {
    waits: Vec<Pin<Box<F>>>,
    wake_counter: Arc<WakeCounter>,
}

impl<F: Future> Waiting<F> {
    pub fn new(waits: impl Iterator<Item = F>) -> Self {
        let wake_counter = Arc::<WakeCounter>::default();
        let mut waiting = Self { waits: waits.map(Box::pin).collect(), wake_counter };
        waiting.poll(|polled| assert!(polled.is_pending()));
        waiting
    }

    /// Asserts that the number of wake-ups is the number of waits.
    pub fn assert_woken(&self) {
        assert_eq!(self.wake_counter.0.load(Ordering::Relaxed), self.waits.len());
    }

    /// Polls each wait once more, and passes its result to `observe`. Each must be complete.
    pub fn finish(&mut self, mut observe: impl FnMut(F::Output)) {
        self.poll(|polled| match polled {
            Poll::Ready(output) => observe(output),
            Poll::Pending => panic!("a wait was woken and is still pending"),
        });
    }

    fn poll(&mut self, mut polled: impl FnMut(Poll<F::Output>)) {
        let waker = Waker::from(Arc::clone(&self.wake_counter));
        let mut context = Context::from_waker(&waker);
        self.waits.iter_mut().for_each(|wait| polled(wait.as_mut().poll(&mut context)));
    }
}
