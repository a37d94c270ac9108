//! One service without dependents, as its documentation has it: the sequential specification.
//!
//! Most calls are one step: they look at the service, perhaps change it, and answer, all at one instant between
//! the call and its return. These are more, and what others do may fall between their steps. The documentation
//! says so, and no more than this is granted:
//!
//! - *A failure* looks what is there, condemns it, and raises it. Between the last two the service still answers
//!   `get`, but `begin` may wait. A failure that found the service up, and is late, hits what is there by then: it
//!   adds one more generation. Of two the later one may be the first to raise, and the other takes nothing down.
//! - *A report* that finds its generation condemned answers `AlreadyFailed`, also where that has not been raised
//!   yet: it "may return while the cascade of another thread is on its way". So may `Running::fail`. A report that
//!   was late hits the replacement that came after its look.
//! - *A refused `get`* says in which phase and generation the service is, which it looks up after it has found
//!   nothing: that is an operation of its own here, [`Call::Why`], right after the first.
//! - *`begin`* waits while the service is condemned, most times. It spares work and is no promise, so a `begin` that
//!   does not wait is right as well.

use Answer::*;
use Outcome::Then;
use Phase::*;

/// The number by which a value is told from all others.
pub(crate) type Mark = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Service {
    pub(crate) generation: u64,
    pub(crate) phase: Phase,
    /// The generation that it is on its way to.
    pub(crate) condemned: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    Down,
    Starting,
    Ready(Mark),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// `get`, `get_arc`, a cached reader's `get`, or one look of `wait_ready`.
    Get,
    /// What a refused `get` says of the service.
    Why,
    Status,
    /// One look of `Provider::begin`.
    Begin,
    IsOvertaken {
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
    Report {
        generation: u64,
        value: Mark,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Value {
        generation: u64,
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
    /// With the value, where there was one.
    Refused,
    Failed {
        went_down: usize,
        overtaken: usize,
    },
    AlreadyFailed,
    Replaced,
}

/// Where a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    First,
    Condemn,
    /// To this generation.
    Raise {
        to: u64,
    },
}

/// What a step leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answer(Answer),
    Then(Step),
}

impl Service {
    pub(crate) fn new(generation: u64, phase: Phase) -> Self {
        Self { generation, phase, condemned: generation }
    }

    /// What may come of a step of a call: the service after it, and what it leads to. Mostly one thing.
    pub(crate) fn apply(self, call: Call, step: Step) -> Vec<(Self, Outcome)> {
        let Self { generation, phase, condemned } = self;
        let mine = |of: u64| of == generation;
        let when = |yes: bool| if yes { Yes } else { No };
        match (call, step) {
            (Call::Get, _) => match phase {
                Ready(value) => self.answers(Value { generation, value }),
                _ => self.answers(NotReady),
            },
            // Ready by now: it was not, at the look before.
            (Call::Why, _) if matches!(phase, Ready(_)) => {
                self.answers(Is { generation, phase: mainstay::Phase::Down })
            }
            (Call::Why | Call::Status, _) => self.answers(Is { generation, phase: phase.public() }),

            (Call::Begin, _) => {
                let mut may = vec![];
                if phase == Down {
                    may.extend(self.to(Starting).answers(Begun { generation }));
                }
                if phase != Down || condemned > generation {
                    may.extend(self.answers(Held));
                }
                may
            }
            (Call::IsOvertaken { generation: of }, _) => {
                self.answers(when(!(mine(of) && phase == Starting)))
            }
            (Call::GiveBack { generation: of }, _) if mine(of) && phase == Starting => {
                self.to(Down).answers(Accepted)
            }
            (Call::Ready { generation: of, value }, _) if mine(of) && phase == Starting => {
                self.to(Ready(value)).answers(Accepted)
            }
            (Call::Replace { generation: of, value }, _)
                if mine(of) && matches!(phase, Ready(_)) =>
            {
                self.to(Ready(value)).answers(Accepted)
            }
            (Call::GiveBack { .. } | Call::Ready { .. } | Call::Replace { .. }, _) => {
                self.answers(Refused)
            }

            // A service that is down stays as it is.
            (Call::Fail, Step::First) if phase == Down => {
                self.answers(Failed { went_down: 0, overtaken: 0 })
            }
            (Call::Report { generation: of, value }, Step::First)
                if mine(of) && matches!(phase, Ready(now) if now != value) =>
            {
                self.answers(Replaced)
            }
            (Call::Fail | Call::Report { .. }, Step::First) => vec![(self, Then(Step::Condemn))],
            (Call::Fail, Step::Condemn) => self.condemn(),
            (Call::Report { generation: of, .. }, Step::Condemn) if condemned != of => {
                self.answers(AlreadyFailed)
            }
            (Call::End { generation: of }, Step::First) if condemned != of => {
                self.answers(Failed { went_down: 0, overtaken: 0 })
            }
            (Call::Report { .. } | Call::End { .. }, Step::First | Step::Condemn) => self.condemn(),
            (Call::Fail | Call::Report { .. } | Call::End { .. }, Step::Raise { to }) => {
                self.raise(to)
            }
        }
    }

    fn condemn(self) -> Vec<(Self, Outcome)> {
        let to = self.condemned + 1;
        vec![(Self { condemned: to, ..self }, Then(Step::Raise { to }))]
    }

    /// The answer is what it took down by that.
    fn raise(self, to: u64) -> Vec<(Self, Outcome)> {
        let late = self.generation >= to;
        let went_down = usize::from(!late && matches!(self.phase, Ready(_)));
        let overtaken = usize::from(!late && self.phase == Starting);
        let after = if late { self } else { Self { generation: to, phase: Down, ..self } };
        after.answers(Failed { went_down, overtaken })
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
