//! The sequential specification of one service without dependents, as its documentation describes
//! it.
//!
//! Most calls take one step: they read the service, perhaps change it, and answer, at one instant
//! between the call and its return. The following calls take more steps, and steps of other calls
//! may happen in between. The documentation allows this, and no more:
//!
//! - *A failure* reads the state, condemns the generation, and takes it down. Between the last two
//!   steps `get` still answers, but `begin` may wait. A failure that read a service that was not
//!   down, and is late, condemns the generation that is current then. A failure that read a service
//!   that was down leaves it alone, unless it finds an attempt later. Of two failures the later one
//!   may be the first to take the service down, and the other one takes nothing down.
//! - *A report* is one step up to the take-down: it finds exactly the reported instance current and
//!   condemns it, or it answers `Replaced` or `AlreadyFailed`. It answers `AlreadyFailed` as soon
//!   as the generation is condemned. The same holds for `Running::fail`, which names no revision.
//! - *A replacement* may be refused as soon as the generation is condemned. If the generation was
//!   condemned by a report of exactly the current instance, it must be refused. If not, it may
//!   have been decided before, and is accepted.
//! - *A refused `get`* reports the phase and the generation, which it reads after it has found no
//!   value. That is an operation of its own here, [`Call::Why`], directly after the first one.
//! - *`begin`* usually waits while the service is condemned. That saves work and is no promise,
//!   and so a `begin` that does not wait is correct, too.
//! - *The end of a provider's handle* abandons the value if a failure has condemned the generation
//!   and has not taken it down. One call claims the removal: the call that ends the handle, a
//!   replacement that wakes the waiters late, or the failure that takes the service down. It drops
//!   the value before it returns, and `begin` waits until then. If there was an earlier instance,
//!   the drop of its last reference wakes the waiters, too, and may claim the removal. No history
//!   records that drop, so after the take-down `begin` may find the value there or not.

use Abandoned::*;
use Answer::*;
use Outcome::Then;
use Phase::*;

/// The number of a value. No two values have the same one.
pub(crate) type Mark = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Service {
    pub(crate) generation: u64,
    pub(crate) phase: Phase,
    /// The replacements of the current instance.
    pub(crate) revision: u64,
    /// The generation to which it will be taken down.
    pub(crate) condemned: u64,
    /// Whether a report of exactly the current instance has condemned it.
    pub(crate) reported: bool,
    pub(crate) abandoned: Abandoned,
}

/// Whether the slot has a value whose provider has let go of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Abandoned {
    Nothing,
    /// The failure that takes the service down will claim the removal, if no other call does.
    Unclaimed,
    /// A call removes the value as soon as the service has been taken down.
    Claimed,
    /// The drop of an earlier instance removes the value, or has removed it.
    ClaimedByDrop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    Down,
    Starting,
    Ready(Mark),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// `get`, `get_arc`, `get` of a cached reader, or one poll of `wait_ready`.
    Get,
    /// The phase and generation in the error of a refused `get`.
    Why,
    Status,
    /// One poll of `Provider::begin`.
    Begin,
    IsInvalidated {
        generation: u64,
    },
    GiveBack {
        generation: u64,
    },
    Ready {
        generation: u64,
        value: Mark,
    },
    Replace {
        generation: u64,
        value: Mark,
    },
    /// `Registry::fail`.
    Fail,
    /// `Running::fail`.
    End {
        generation: u64,
    },
    /// `fail_instance`, of any revision if there is none.
    FailInstance {
        generation: u64,
        revision: Option<u64>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    Value {
        generation: u64,
        revision: u64,
        value: Mark,
    },
    NotReady,
    Is {
        generation: u64,
        phase: mainstay::Phase,
    },
    Begun {
        generation: u64,
    },
    Held,
    Yes,
    No,
    Accepted,
    /// With the value, if the call had one.
    Refused,
    Failed {
        failed: usize,
        invalidated: usize,
    },
    AlreadyFailed,
    Replaced,
}

/// The next step of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    First,
    /// Looks for an attempt at a service that was down.
    FindAttempt,
    Condemn,
    /// Takes the service down to this generation.
    TakeDown {
        to: u64,
    },
    /// Claims the removal of an abandoned value, after an accepted replacement.
    Claim,
    /// Drops an abandoned value, and answers.
    Remove {
        answer: Answer,
    },
}

/// The result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answer(Answer),
    Then(Step),
}

impl Service {
    pub(crate) fn new(generation: u64, phase: Phase) -> Self {
        Self {
            generation,
            phase,
            revision: 0,
            condemned: generation,
            reported: false,
            abandoned: Nothing,
        }
    }

    /// The possible results of a step: the service after the step, and its outcome. Mostly one.
    pub(crate) fn apply(self, call: Call, step: Step) -> Vec<(Self, Outcome)> {
        let Self { generation, phase, revision, condemned, reported, abandoned } = self;
        let is_current = |of: u64| of == generation;
        let when = |yes: bool| if yes { Yes } else { No };
        match (call, step) {
            (Call::Get, _) => match phase {
                Ready(value) => self.answers(Value { generation, revision, value }),
                _ => self.answers(NotReady),
            },
            // It is ready now, and was not when `get` read it.
            (Call::Why, _) if matches!(phase, Ready(_)) => {
                self.answers(Is { generation, phase: mainstay::Phase::Down })
            }
            (Call::Why | Call::Status, _) => self.answers(Is { generation, phase: phase.public() }),

            (Call::Begin, _) => {
                let mut results = vec![];
                if phase == Down && matches!(abandoned, Nothing | ClaimedByDrop) {
                    let removed = Self { abandoned: Nothing, ..self };
                    results.extend(removed.to(Starting).answers(Begun { generation }));
                }
                if phase != Down || condemned > generation || abandoned != Nothing {
                    results.extend(self.answers(Held));
                }
                results
            }
            (Call::IsInvalidated { generation: of }, _) => {
                self.answers(when(!(is_current(of) && phase == Starting)))
            }
            (Call::GiveBack { generation: of }, _) if is_current(of) && phase == Starting => {
                self.to(Down).answers(Accepted)
            }
            (Call::Ready { generation: of, value }, _) if is_current(of) && phase == Starting => {
                Self { revision: 0, ..self.to(Ready(value)) }.answers(Accepted)
            }
            (Call::Replace { generation: of, value }, Step::First)
                if is_current(of) && matches!(phase, Ready(_)) =>
            {
                let mut results = vec![];
                if !reported {
                    let after = Self { revision: revision + 1, ..self.to(Ready(value)) };
                    results.extend(after.answers(Accepted));
                    results.push((after, Then(Step::Claim)));
                }
                if condemned > generation {
                    results.extend(self.answers(Refused));
                }
                results
            }
            (Call::Replace { .. }, Step::Claim) if abandoned == Unclaimed => {
                vec![(Self { abandoned: Claimed, ..self }, Then(Step::Remove { answer: Accepted }))]
            }
            (Call::Replace { .. }, Step::Claim) => vec![],
            (_, Step::Remove { answer }) if phase == Down => {
                Self { abandoned: Nothing, ..self }.answers(answer)
            }
            (_, Step::Remove { .. }) => vec![],
            (Call::GiveBack { .. } | Call::Ready { .. } | Call::Replace { .. }, _) => {
                self.answers(Refused)
            }

            // A failure leaves a service alone that is down.
            (Call::Fail, Step::First) if phase == Down => {
                let mut results = self.answers(Failed { failed: 0, invalidated: 0 });
                results.push((self, Then(Step::FindAttempt)));
                results
            }
            (Call::Fail, Step::FindAttempt) if phase == Down => vec![],
            (Call::Fail, Step::First | Step::FindAttempt) => vec![(self, Then(Step::Condemn))],
            (Call::Fail, Step::Condemn) => self.condemn(),

            (Call::FailInstance { generation: of, .. }, Step::First) if condemned != of => {
                self.answers(AlreadyFailed)
            }
            (Call::FailInstance { revision: Some(at), .. }, Step::First) if at < revision => {
                self.answers(Replaced)
            }
            (Call::FailInstance { revision: at, .. }, Step::First) => {
                Self { reported: at.is_some(), ..self }.condemn()
            }
            (Call::End { generation: of }, Step::First) if condemned != of => {
                let answer = Failed { failed: 0, invalidated: 0 };
                if generation != of {
                    return self.answers(answer);
                }
                let claimed = Self { abandoned: Claimed, ..self };
                let mut results = Self { abandoned: Unclaimed, ..self }.answers(answer);
                results.push((claimed, Then(Step::Remove { answer })));
                results
            }
            (Call::End { .. }, Step::First) => self.condemn(),
            (Call::Fail | Call::FailInstance { .. } | Call::End { .. }, Step::TakeDown { to }) => {
                self.take_down(to)
            }
            (Call::Fail | Call::FailInstance { .. } | Call::End { .. }, _) => vec![],
        }
    }

    fn condemn(self) -> Vec<(Self, Outcome)> {
        let to = self.condemned + 1;
        vec![(Self { condemned: to, ..self }, Then(Step::TakeDown { to }))]
    }

    /// The answer counts what this step took down.
    fn take_down(self, to: u64) -> Vec<(Self, Outcome)> {
        let late = self.generation >= to;
        let failed = usize::from(!late && matches!(self.phase, Ready(_)));
        let invalidated = usize::from(!late && self.phase == Starting);
        let down = Self { generation: to, phase: Down, revision: 0, reported: false, ..self };
        let after = if late { self } else { down };
        let answer = Failed { failed, invalidated };
        if !late && self.abandoned == Unclaimed {
            let claimed = Self { abandoned: Claimed, ..after };
            let mut results = vec![(claimed, Then(Step::Remove { answer }))];
            // A history begins with the first instance.
            if self.generation > 0 || self.revision > 0 {
                results.extend(Self { abandoned: ClaimedByDrop, ..after }.answers(answer));
            }
            return results;
        }
        after.answers(answer)
    }

    fn to(self, phase: Phase) -> Self {
        Self { phase, ..self }
    }

    fn answers(self, answer: Answer) -> Vec<(Self, Outcome)> {
        vec![(self, Outcome::Answer(answer))]
    }
}

impl Phase {
    fn public(self) -> mainstay::Phase {
        match self {
            Down => mainstay::Phase::Down,
            Starting => mainstay::Phase::Starting,
            Ready(_) => mainstay::Phase::Ready,
        }
    }
}
