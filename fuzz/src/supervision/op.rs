//! The operations, decoded from bytes.

use arbitrary::{Arbitrary, Result, Unstructured};

/// The outcome of a build that does not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Fail,
    FailPermanently,
    FailAsPlanned,
}

/// What a reload of a dependency does with a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is built anew.
    Plain,
    /// It is restarted.
    Exclusive,
    /// It adopts the new instances of all dependencies.
    Adopter,
    /// It adopts those of the first service, and is built anew for all others.
    AdopterOfFirst,
}

impl Kind {
    pub(super) fn is_exclusive(self) -> bool {
        self == Self::Exclusive
    }

    pub(super) fn adopts(self, dependency: usize) -> bool {
        match self {
            Self::Plain | Self::Exclusive => false,
            Self::Adopter => true,
            Self::AdopterOfFirst => dependency == 0,
        }
    }
}

/// How a body returns before it was notified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyEnd {
    Fails,
    FailsPermanently,
    Completes,
    StaysReady,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Op {
    Fail {
        service: u8,
        planned: bool,
    },
    Restart(u8),
    Stop {
        service: u8,
        subtree: bool,
    },
    Start(u8),
    Reload {
        service: u8,
        /// Chooses whether a member refuses it, or one with a gap does not come up, or an adopter
        /// fails, and which one; and whether it is refused if one has a gap.
        refuser: u8,
    },
    /// The outcome of the next build of a service, after those that are defined already.
    NextBuild(u8, Outcome),
    EndBody(u8, BodyEnd),
    /// In milliseconds.
    Advance(u64),
}

impl Arbitrary<'_> for Op {
    fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
        let kind = u.arbitrary::<u8>()?;
        Ok(match kind % 20 {
            0..=2 => Self::Fail { service: u.arbitrary()?, planned: false },
            3 => Self::Fail { service: u.arbitrary()?, planned: true },
            4..=5 => Self::Restart(u.arbitrary()?),
            6 => Self::Stop { service: u.arbitrary()?, subtree: false },
            7 => Self::Stop { service: u.arbitrary()?, subtree: true },
            9 if kind >= 100 => Self::Reload { service: u.arbitrary()?, refuser: u.arbitrary()? },
            8..=9 => Self::Start(u.arbitrary()?),
            10..=11 => Self::NextBuild(u.arbitrary()?, Outcome::Fail),
            12 => Self::NextBuild(u.arbitrary()?, Outcome::FailPermanently),
            13 => Self::NextBuild(u.arbitrary()?, Outcome::FailAsPlanned),
            14 => Self::EndBody(
                u.arbitrary()?,
                match kind / 20 % 4 {
                    0 => BodyEnd::Fails,
                    1 => BodyEnd::FailsPermanently,
                    2 => BodyEnd::Completes,
                    _ => BodyEnd::StaysReady,
                },
            ),
            _ => {
                let times = [1, 20, 36, 37, 60, 100, 113, 200, 400, 1_000, 5_000, 10_000];
                Self::Advance(times[usize::from(u.arbitrary::<u8>()?) % times.len()])
            }
        })
    }
}

/// Supervised services, and the operations on them.
#[derive(Debug)]
pub(super) struct Script {
    /// For each service: its dependencies among those before it, its kind, and how long its body
    /// takes to return after it was notified, if there is a body.
    pub(super) services: Vec<(Vec<usize>, Kind, Option<u64>)>,
    pub(super) ops: Vec<Op>,
}

impl Script {
    const MAX_OPS: usize = 80;
}

impl Arbitrary<'_> for Script {
    fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
        let count = 2 + usize::from(u.arbitrary::<u8>()? % 5);
        let mut services = Vec::new();
        for service in 0..count {
            let (edges, of_service): (u8, u8) = (u.arbitrary()?, u.arbitrary()?);
            let dependencies = (0..service).filter(|before| edges >> before & 1 == 1).collect();
            // The last one is longer than the stop timeout.
            let body = [None, Some(0), Some(37), Some(1_000)][usize::from(of_service) % 4];
            let kind = match of_service >> 5 {
                0..=4 => Kind::Plain,
                5 => Kind::Exclusive,
                6 => Kind::Adopter,
                _ => Kind::AdopterOfFirst,
            };
            services.push((dependencies, kind, body));
        }
        let mut ops = Vec::new();
        while !u.is_empty() && ops.len() < Self::MAX_OPS {
            ops.push(u.arbitrary()?);
        }
        Ok(Self { services, ops })
    }
}
