//! Waiting for a slot to change: listen, announce, look again, sleep.
//!
//! event-listener wakes tasks while it holds its lock, and its counts do not survive a waker that panics
//! there. So it never sees a user's waker: each waiter gives it a [`Relay`], which only notes that it is due,
//! and the notifier wakes the user's wakers once the lock is free, each shielded from the others. A waker
//! may therefore panic, or run its task inline and come back here.
//!
//! A listener is always discarded, never just dropped: dropping a notified one would pass its notification on
//! to another, and everybody has been notified anyway.

use std::{
    cell::RefCell,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
};

use crate::sync::{self, Event, EventListener, Listener, shielded, thread_local};

/// Where the waiters of one slot are kept.
pub(crate) struct WaitPoint(Event);

impl WaitPoint {
    pub(crate) fn new() -> Self {
        Self(Event::new())
    }

    /// Wakes everybody. Locks inside for as long as it takes to walk the list; wakers run after that.
    pub(crate) fn wake_all(&self) {
        self.0.notify(usize::MAX);
        Relay::wake_due();
    }
}

/// What event-listener wakes in a user's place.
struct Relay {
    user: sync::Mutex<User>,
}

/// Whom a relay wakes.
enum User {
    /// Nobody yet.
    Nobody,
    Waits(Waker),
    /// It was due, whether somebody waited or not.
    Woken,
}

thread_local! {
    /// Whom this thread has to wake once it holds no lock.
    // loom's macro knows no `const` form.
    #[allow(clippy::missing_const_for_thread_local)]
    static DUE: RefCell<Vec<Arc<Relay>>> = RefCell::new(Vec::new());
}

/// The same for threads that are ending and have no list of their own any more. Whoever takes it wakes all:
/// they are due.
static DUE_AT_END: Mutex<Vec<Arc<Relay>>> = Mutex::new(Vec::new());

fn due_at_end() -> MutexGuard<'static, Vec<Arc<Relay>>> {
    DUE_AT_END.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Relay {
    /// Remembers the waker for the next wake-up. False where that has come already.
    fn set(&self, waker: &Waker) -> bool {
        // Cloning and dropping are the user's code too, and stay outside the lock.
        let waker = waker.clone();
        match self.exchange(User::Waits(waker)) {
            User::Woken => {
                drop(self.exchange(User::Nobody));
                false
            }
            _previous => true,
        }
    }

    fn exchange(&self, user: User) -> User {
        mem::replace(&mut sync::lock(&self.user), user)
    }

    fn wake_user(&self) {
        if let User::Waits(waker) = self.exchange(User::Woken) {
            shielded(|| waker.wake());
        }
    }

    fn wake_due() {
        // Taken as a whole, with no lock or borrow kept: a waker that runs its task in place may come here again.
        let due = DUE.try_with(|due| mem::take(&mut *due.borrow_mut()));
        for relay in due.unwrap_or_else(|_| mem::take(&mut *due_at_end())) {
            relay.wake_user();
            // What was woken may have left another waker, and be gone: then this is its last holder.
            if let Some(relay) = Arc::into_inner(relay) {
                shielded(|| drop(relay));
            }
        }
    }
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        let mut relay = Some(self);
        // It fails without having taken the relay.
        let _ = DUE.try_with(|due| due.borrow_mut().extend(relay.take()));
        if let Some(relay) = relay {
            due_at_end().push(relay);
        }
    }
}

/// One waiter, on one slot or two. Whoever drops it disarms it before.
#[derive(Default)]
pub(crate) struct Waiter {
    listeners: [Option<EventListener>; 2],
    relay: Option<Arc<Relay>>,
}

impl Waiter {
    pub(crate) fn is_armed(&self) -> bool {
        self.listeners.iter().any(Option::is_some)
    }

    /// Listens. The caller announces itself to the slot after this and then looks again.
    pub(crate) fn listen(&mut self, point: &WaitPoint) {
        let place = usize::from(self.listeners[0].is_some());
        self.listeners[place] = Some(point.0.listen());
    }

    pub(crate) fn disarm(&mut self) {
        for listener in &mut self.listeners {
            if let Some(listener) = listener.take() {
                listener.discard();
            }
        }
    }

    /// Ready, and disarmed, once one of the slots has been notified.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let new = || Arc::new(Relay { user: sync::Mutex::new(User::Nobody) });
        let relay = self.relay.get_or_insert_with(new);
        let waker = Waker::from(Arc::clone(relay));
        loop {
            let mut notified = false;
            for listener in &mut self.listeners {
                if let Some(listening) = listener {
                    let relayed = &mut Context::from_waker(&waker);
                    if Pin::new(listening).poll(relayed).is_ready() {
                        *listener = None;
                        notified = true;
                    }
                }
            }
            if notified {
                self.disarm();
                return Poll::Ready(());
            }
            // Only who must wait leaves a waker. If the relay was due before that, a listener has been notified, or
            // it is from a wait before this one.
            if relay.set(context.waker()) {
                return Poll::Pending;
            }
        }
    }
}
