//! Waiting until a slot changes, or the log of what is stuck. A waiter listens, sets the waiter
//! bit, checks its condition, and sleeps if the condition does not hold (W).
//!
//! event-listener wakes tasks while it holds its lock, and its counters do not survive a waker
//! that panics there. So it never gets a waker of the user. It gets a [`Relay`], which only
//! records that it is due. After the lock is released, the notifying thread wakes the users'
//! wakers, each protected from the panics of the others. So a waker may panic, and may run its
//! task in place.
//!
//! A listener is always discarded, not only dropped: the drop of a notified listener would pass its
//! notification to another one, but all of them are notified anyway.

use std::{
    cell::RefCell,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
};

use crate::sync::{self, Event, EventListener, Listener, Shielded, shielded, thread_local};

/// The waiters of one slot.
pub(crate) struct WaitPoint(Event);

impl WaitPoint {
    pub(crate) fn new() -> Self {
        Self(Event::new())
    }

    /// Wakes all waiters. event-listener holds its lock while it notifies the list of waiters.
    /// Their wakers run after that.
    pub(crate) fn wake_all(&self) {
        self.0.notify(usize::MAX);
        Relay::wake_due();
    }
}

/// The waker that event-listener gets in place of the user's waker.
struct Relay {
    user: sync::Mutex<UserWaker>,
}

/// The waker of the user, as a relay stores it.
enum UserWaker {
    /// The waiter has not stored its waker.
    Absent,
    /// The waiter sleeps and must be woken.
    Waiting(Shielded<Waker>),
    /// The relay was due, with or without a waker.
    Woken,
}

thread_local! {
    /// The relays that this thread must wake as soon as it holds no lock.
    // The macro of loom has no `const` form.
    #[allow(clippy::missing_const_for_thread_local)]
    static DUE: RefCell<Vec<Arc<Relay>>> = RefCell::new(Vec::new());
}

/// The same for threads that are ending and whose own list is destroyed. The thread that takes
/// the list wakes all of them, because they are due.
static DUE_AT_END: Mutex<Vec<Arc<Relay>>> = Mutex::new(Vec::new());

fn due_at_end() -> MutexGuard<'static, Vec<Arc<Relay>>> {
    DUE_AT_END.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Relay {
    /// Stores the waker for the next wake-up. Returns false if the relay was due already.
    fn set(&self, waker: &Waker) -> bool {
        // The clone and the drop of a waker are user code, too, and run without the lock. A panic
        // of the clone reaches only the task that polls.
        let waker = Shielded::new(waker.clone());
        match self.exchange(UserWaker::Waiting(waker)) {
            UserWaker::Woken => {
                drop(self.exchange(UserWaker::Absent));
                false
            }
            _previous => true,
        }
    }

    fn exchange(&self, user: UserWaker) -> UserWaker {
        mem::replace(&mut sync::lock(&self.user), user)
    }

    fn wake_user(&self) {
        if let UserWaker::Waiting(waker) = self.exchange(UserWaker::Woken) {
            shielded(|| waker.into_inner().wake());
        }
    }

    /// Wakes the users' wakers of all relays that are due on this thread.
    fn wake_due() {
        // The whole list is taken, and no lock or borrow is held: a waker that runs its task in
        // place may call this function again.
        let due = DUE.try_with(|due| mem::take(&mut *due.borrow_mut()));
        for relay in due.unwrap_or_else(|_| mem::take(&mut *due_at_end())) {
            relay.wake_user();
        }
    }
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        let mut relay = Some(self);
        // If the list of this thread is destroyed, the closure does not run, and `relay` keeps
        // its value.
        let _ = DUE.try_with(|due| due.borrow_mut().extend(relay.take()));
        if let Some(relay) = relay {
            due_at_end().push(relay);
        }
    }
}

/// A waiter on one or two points. The owner must call `disarm` before the drop.
#[derive(Default)]
pub(crate) struct Waiter {
    listeners: [Option<EventListener>; 2],
    /// The relay, and the waker that calls it, which is kept for all polls of this waiter.
    relay: Option<(Arc<Relay>, Waker)>,
}

impl Waiter {
    pub(crate) fn is_armed(&self) -> bool {
        self.listeners.iter().any(Option::is_some)
    }

    /// Listens to a slot. Then the caller sets the waiter bit of the slot and checks its
    /// condition (W).
    pub(crate) fn listen(&mut self, point: &WaitPoint) {
        let place = usize::from(self.listeners[0].is_some());
        self.listeners[place] = Some(point.0.listen());
    }

    /// Stops listening. The notifications of other waiters are not affected.
    pub(crate) fn disarm(&mut self) {
        for listener in &mut self.listeners {
            if let Some(listener) = listener.take() {
                listener.discard();
            }
        }
    }

    /// Returns `Ready`, and stops listening, after one of the slots was notified.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (relay, waker) = self.relay.get_or_insert_with(|| {
            let relay = Arc::new(Relay { user: sync::Mutex::new(UserWaker::Absent) });
            let waker = Waker::from(Arc::clone(&relay));
            (relay, waker)
        });
        loop {
            let mut notified = false;
            for listener in &mut self.listeners {
                if let Some(listening) = listener {
                    let relayed = &mut Context::from_waker(waker);
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
            // The user's waker is stored only if the waiter must sleep. If the relay was due
            // before that, a listener has been notified since the poll above, or the wake-up
            // belongs to an earlier wait. The loop polls again.
            if relay.set(context.waker()) {
                return Poll::Pending;
            }
        }
    }
}
