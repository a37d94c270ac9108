//! Many waits at once, on one thread.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

/// Counts how often it wakes.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
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
    woken: Arc<Woken>,
}

impl<F: Future> Waiting<F> {
    pub fn new(waits: impl Iterator<Item = F>) -> Self {
        let woken = Arc::<Woken>::default();
        let mut waiting = Self { waits: waits.map(Box::pin).collect(), woken };
        waiting.poll(|polled| assert!(polled.is_pending()));
        waiting
    }

    /// Each of them was woken, once.
    pub fn assert_woken(&self) {
        assert_eq!(self.woken.0.load(Ordering::Relaxed), self.waits.len());
    }

    /// Polls each once more, which must be the last time.
    pub fn finish(&mut self, mut observe: impl FnMut(F::Output)) {
        self.poll(|polled| match polled {
            Poll::Ready(output) => observe(output),
            Poll::Pending => panic!("woken for nothing"),
        });
    }

    fn poll(&mut self, mut polled: impl FnMut(Poll<F::Output>)) {
        let waker = Waker::from(Arc::clone(&self.woken));
        let mut context = Context::from_waker(&waker);
        self.waits.iter_mut().for_each(|wait| polled(wait.as_mut().poll(&mut context)));
    }
}
