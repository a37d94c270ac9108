//! `stop_signal`: a future for the signals that ask a process to end (P8).
//!
//! The handlers are installed once for the process, at the first call. On Unix, they end the
//! process if `exits` is set: that needs no thread of the program. It is set
//!
//! - by the first signal, in the handler itself;
//! - while no future exists that could receive a signal.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        Mutex,
        MutexGuard,
        PoisonError,
        // As signal-hook takes it.
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use crate::{
    clock::block_on,
    error::MustAwaitError,
    registry::Progress,
    sync::{polls_supervisor, shielded},
};

/// A signal that asks the process to end.
///
/// ```
/// # #[cfg(unix)] {
/// use mainstay::program::Signal;
///
/// assert_eq!(Signal::TERMINATE.to_string(), "SIGTERM");
/// assert_eq!(Signal::INTERRUPT.exit_code(), 130);
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(u8);

impl Signal {
    /// SIGINT; Ctrl-C.
    pub const INTERRUPT: Self = Self(2);
    /// SIGTERM. Not on Windows.
    pub const TERMINATE: Self = Self(15);

    /// Returns the number of the signal.
    ///
    /// ```
    /// assert_eq!(mainstay::program::Signal::TERMINATE.number(), 15);
    /// ```
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }

    /// Returns the exit code of a process that this signal has ended at once: 128 + its number.
    ///
    /// ```
    /// assert_eq!(mainstay::program::Signal::TERMINATE.exit_code(), 143);
    /// ```
    #[must_use]
    pub fn exit_code(self) -> u8 {
        128 + self.0
    }

    fn name(self) -> &'static str {
        if self == Self::INTERRUPT { "SIGINT" } else { "SIGTERM" }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl From<Signal> for Arc<str> {
    fn from(signal: Signal) -> Self {
        signal.name().into()
    }
}

/// Returns a future that completes at the first signal that asks this process to end: SIGTERM,
/// SIGINT, or Ctrl-C on Windows.
///
/// The first call installs the handlers, and starts one thread, which wakes the futures. From then
/// on the first signal completes all futures of this function, also later ones. The second signal
/// ends the process at once, with the exit code 128 + its number: no destructor runs. If all
/// futures were dropped before a signal arrived, the first signal ends the process.
///
/// The handlers of tokio, of signal-hook and of the crates that use signal-hook-registry are called
/// as well.
///
/// # Errors
///
/// The error of the system that has refused a handler or the thread. Then the signals end the
/// process, as without a handler.
///
/// ```no_run
/// use mainstay::program::{Program, stop_signal};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = mainstay::Registry::with_capacity(1)?;
/// let program = Program::on_threads(&registry).stop_when(stop_signal()?);
/// println!("{}", program.run_blocking(|_| Ok::<_, &str>(())));
/// # Ok(())
/// # }
/// ```
pub fn stop_signal() -> io::Result<StopSignal> {
    let handlers = Handlers::installed()?;
    let mut state = handlers.state();
    // Not if there are others: a signal may have arrived that is not recorded yet.
    if state.listeners == 0 && state.first.is_none() {
        handlers.exits.store(false, Ordering::Relaxed);
    }
    state.listeners += 1;
    drop(state);
    let listener = Listener(handlers);
    Ok(StopSignal(Box::pin(async move { listener.0.first().await })))
}

/// The future of [`stop_signal`]. It works on every executor, is cancel-safe, and borrows nothing.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let stop = mainstay::program::stop_signal()?;
/// println!("ends because of {}", stop.wait_blocking()?);
/// # Ok(())
/// # }
/// ```
#[must_use = "a wait does nothing unless it is awaited or `wait_blocking` is called"]
pub struct StopSignal(Pin<Box<dyn Future<Output = Signal> + Send>>);

impl StopSignal {
    /// Blocks this thread until the signal arrives.
    ///
    /// # Errors
    ///
    /// [`MustAwaitError`]: this is a poll of an async supervisor, which must not block.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// let signal = mainstay::program::stop_signal()?.wait_blocking()?;
    /// registry.request_shutdown(signal);
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait_blocking(self) -> Result<Signal, MustAwaitError> {
        if polls_supervisor() {
            return Err(MustAwaitError::of_registry());
        }
        Ok(block_on(|_| self.0))
    }
}

impl Future for StopSignal {
    type Output = Signal;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Signal> {
        self.0.as_mut().poll(context)
    }
}

impl fmt::Debug for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StopSignal").finish_non_exhaustive()
    }
}

/// The handlers of this process.
static INSTALLED: Mutex<Option<Arc<Handlers>>> = Mutex::new(None);

struct Handlers {
    /// Whether the next signal ends the process. Relaxed: it says nothing about other memory.
    exits: Arc<AtomicBool>,
    state: Mutex<State>,
    /// Counts a step after the first signal.
    changed: Progress,
}

#[derive(Default)]
struct State {
    /// The first signal.
    first: Option<Signal>,
    /// The number of futures.
    listeners: usize,
}

impl Handlers {
    /// Returns the handlers. Installs them if they are not.
    fn installed() -> io::Result<Arc<Self>> {
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handlers) = &*installed {
            return Ok(Arc::clone(handlers));
        }
        let handlers = Arc::new(Self {
            exits: Arc::new(AtomicBool::new(true)),
            state: Mutex::default(),
            changed: Progress::default(),
        });
        handlers.install()?;
        *installed = Some(Arc::clone(&handlers));
        Ok(handlers)
    }

    #[cfg(unix)]
    fn install(self: &Arc<Self>) -> io::Result<()> {
        use signal_hook::{flag, iterator::Signals};

        let all = [Signal::TERMINATE, Signal::INTERRUPT];
        for signal in all {
            let (number, exit_code) = (signal.number().into(), signal.exit_code().into());
            // In this order: they are called in the order in which they are registered.
            flag::register_conditional_shutdown(number, exit_code, Arc::clone(&self.exits))?;
            flag::register(number, Arc::clone(&self.exits))?;
        }
        let mut signals = Signals::new(all.map(|signal| i32::from(signal.number())))?;
        let handlers = Arc::clone(self);
        let thread = std::thread::Builder::new().name("mainstay-signals".into());
        let wake = move || {
            for number in signals.forever() {
                handlers.arrived(all.into_iter().find(|it| i32::from(it.number()) == number));
            }
        };
        thread.spawn(wake).map(drop)
    }

    #[cfg(not(unix))]
    fn install(self: &Arc<Self>) -> io::Result<()> {
        let handlers = Arc::clone(self);
        // ctrlc calls it on its own thread.
        let handler = move || {
            let signal = Signal::INTERRUPT;
            if handlers.exits.swap(true, Ordering::Relaxed) {
                std::process::exit(signal.exit_code().into());
            }
            handlers.arrived(Some(signal));
        };
        ctrlc::try_set_handler(handler).map_err(io::Error::other)
    }

    fn arrived(&self, signal: Option<Signal>) {
        let mut state = self.state();
        state.first = state.first.or(signal);
        // Again: the future of this signal may have been dropped, and another one created.
        self.exits.store(true, Ordering::Relaxed);
        drop(state);
        // It calls the wakers of users.
        shielded(|| self.changed.step());
    }

    async fn first(&self) -> Signal {
        loop {
            let steps = self.changed.steps();
            let first = self.state().first;
            if let Some(signal) = first {
                return signal;
            }
            self.changed.after(steps).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A future that can receive the first signal.
struct Listener(Arc<Handlers>);

impl Drop for Listener {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.listeners -= 1;
        if state.listeners == 0 {
            self.0.exits.store(true, Ordering::Relaxed);
        }
    }
}
