//! How reads are ordered with the removal of what they read.

use crate::{registry::Registry, sync::is_asymmetric};

/// What a read executes so that nothing which it uses is freed ([`Registry::read_fence`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReadFence {
    /// No fence: a writer lets the kernel execute one on all threads (`membarrier` of Linux).
    Membarrier,
    /// Two fences in each read, which cost about as much as a load of arc-swap. The system has no
    /// `membarrier`, or refuses it.
    Full,
}

impl Registry {
    /// Returns what reads execute. It is decided once in a process, at the first read.
    ///
    /// [`ReadFence::Membarrier`] is what makes [`get`](Self::get) cheap. Linux has it since 4.14,
    /// but a sandbox may refuse the call: log this value at the start of a server.
    ///
    /// ```
    /// use mainstay::{ReadFence, Registry};
    ///
    /// let registry = Registry::with_capacity(1)?;
    /// match registry.read_fence() {
    ///     ReadFence::Membarrier => {}
    ///     other => println!("reads are slower than they could be: {other:?}"),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_fence(&self) -> ReadFence {
        if is_asymmetric() { ReadFence::Membarrier } else { ReadFence::Full }
    }
}
