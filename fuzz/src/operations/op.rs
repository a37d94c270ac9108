//! The operations, decoded from bytes. A regression is a file of bytes, so a change of this decoder
//! changes the meaning of the stored files. If a new operation is needed, add it in place of
//! `Nothing`.

use arbitrary::{Arbitrary, Result, Unstructured};

/// Chooses one of the items that exist when the operation is carried out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pick(u8);

impl Pick {
    /// From this number on, a service is one of another registry.
    const FIRST_FOREIGN: u8 = 250;

    pub(crate) fn index(self, count: usize) -> Option<usize> {
        (count > 0).then(|| usize::from(self.0) % count)
    }

    /// Returns one of the services, or `None` for a service of another registry.
    pub(crate) fn service(self, services: &[usize]) -> Option<usize> {
        let service = if self.0 < Self::FIRST_FOREIGN { self.index(services.len()) } else { None };
        service.map(|index| services[index])
    }
}

impl Arbitrary<'_> for Pick {
    fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
        u.arbitrary().map(Self)
    }
}

/// The kind of a wait, and what happens to it if it is pending after the first poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitMode {
    /// A future that is kept, and polled again later.
    Keep,
    /// A future that is dropped.
    Drop,
    /// A blocking wait with a timeout of zero.
    ZeroTimeout,
    /// A blocking wait whose deadline has already passed.
    PastDeadline,
}

impl Arbitrary<'_> for WaitMode {
    fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
        Ok(match u.arbitrary::<u8>()? % 8 {
            0 | 1 | 4 | 5 => Self::Keep,
            2 | 6 => Self::Drop,
            3 => Self::ZeroTimeout,
            _ => Self::PastDeadline,
        })
    }
}

/// The method by which a value is read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ReadMethod {
    Guard,
    Arc,
    /// Guards of two services at one instant.
    Two(Pick),
    /// Guards of three services at one instant.
    Three(Pick, Pick),
}

/// One operation.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Op {
    Nothing,
    Register {
        name: u8,
        of_values: bool,
    },
    Find {
        name: u8,
    },
    Declare {
        dependent: Pick,
        dependency: Pick,
    },
    DeclareToStart {
        dependent: Pick,
        dependency: Pick,
    },
    DeclareSoft {
        dependent: Pick,
        dependency: Pick,
    },
    Provide(Pick),
    DropProvider(Pick),
    Begin(Pick, WaitMode),
    WaitFor {
        attempt: Pick,
        dependency: Pick,
        start_only: bool,
        mode: WaitMode,
    },
    /// By an untyped id.
    WaitForAny {
        attempt: Pick,
        dependency: Pick,
        start_only: bool,
        mode: WaitMode,
    },
    /// A wait for any change since the present state, by an untyped id.
    WaitStateChanged(Pick, WaitMode),
    WaitReady(Pick, WaitMode),
    WaitInvalidated(Pick, WaitMode),
    WaitFailed(Pick, WaitMode),
    Poll(Pick),
    DropWait(Pick),
    /// A watch by an attempt, or by a reader if `attempt` is `None`.
    Watch {
        attempt: Option<Pick>,
        service: Pick,
    },
    WaitChanged(Pick, WaitMode),
    DropWatch(Pick),
    Ready(Pick),
    EndAttempt {
        attempt: Pick,
        with_reason: bool,
    },
    Replace(Pick),
    EndRunning {
        running: Pick,
        with_reason: bool,
    },
    RunningInstance(Pick),
    Fail(Pick),
    Get(Pick, ReadMethod),
    CreateCached(Pick),
    GetCached(Pick),
    DropCached(Pick),
    DropHeld(Pick),
    FailInstance(Pick),
    FailForeignInstance(Pick),
    Status(Pick),
    Restart(Pick, WaitMode),
    Stop {
        service: Pick,
        subtree: bool,
        mode: WaitMode,
    },
    Start(Pick),
    /// The provider of a running handle holds its turn to stop.
    HoldTurn(Pick),
    DropTurn(Pick),
    Close,
    /// Provides a service, begins an attempt, waits for the dependency if there is one, and
    /// publishes. Without this operation most states would be rare.
    BringUp {
        service: Pick,
        dependency: Option<Pick>,
    },
}

impl Arbitrary<'_> for Op {
    fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
        let kind = u.arbitrary::<u8>()?;
        Ok(match if kind < 200 { kind % 100 } else { kind } {
            0..=2 => Self::Register { name: u.arbitrary()?, of_values: true },
            3 => Self::Register { name: u.arbitrary()?, of_values: false },
            4 => Self::Find { name: u.arbitrary()? },
            5..=9 => Self::Declare { dependent: u.arbitrary()?, dependency: u.arbitrary()? },
            10..=11 => Self::Provide(u.arbitrary()?),
            12 => Self::DropProvider(u.arbitrary()?),
            13..=18 => Self::Begin(u.arbitrary()?, u.arbitrary()?),
            19..=29 => Self::WaitFor {
                attempt: u.arbitrary()?,
                dependency: u.arbitrary()?,
                start_only: false,
                mode: u.arbitrary()?,
            },
            30..=32 => Self::WaitReady(u.arbitrary()?, u.arbitrary()?),
            33..=34 => Self::WaitInvalidated(u.arbitrary()?, u.arbitrary()?),
            35..=36 => Self::WaitFailed(u.arbitrary()?, u.arbitrary()?),
            37..=42 => Self::Poll(u.arbitrary()?),
            43 => Self::DropWait(u.arbitrary()?),
            44..=51 => Self::Ready(u.arbitrary()?),
            52..=53 => Self::EndAttempt { attempt: u.arbitrary()?, with_reason: true },
            54 => Self::EndAttempt { attempt: u.arbitrary()?, with_reason: false },
            55..=57 => Self::Replace(u.arbitrary()?),
            58 => Self::EndRunning { running: u.arbitrary()?, with_reason: true },
            59..=60 => Self::EndRunning { running: u.arbitrary()?, with_reason: false },
            61 => Self::RunningInstance(u.arbitrary()?),
            62..=66 => Self::Fail(u.arbitrary()?),
            67..=69 => Self::Get(u.arbitrary()?, ReadMethod::Guard),
            70..=71 => Self::Get(u.arbitrary()?, ReadMethod::Arc),
            72 => Self::Get(u.arbitrary()?, ReadMethod::Two(u.arbitrary()?)),
            73 => Self::Get(u.arbitrary()?, ReadMethod::Three(u.arbitrary()?, u.arbitrary()?)),
            74 => Self::CreateCached(u.arbitrary()?),
            75..=76 => Self::GetCached(u.arbitrary()?),
            77 => Self::DropCached(u.arbitrary()?),
            78 => Self::DropHeld(u.arbitrary()?),
            79..=81 => Self::FailInstance(u.arbitrary()?),
            82 => Self::FailForeignInstance(u.arbitrary()?),
            83 => Self::Status(u.arbitrary()?),
            84 => match u.arbitrary::<u8>()? {
                // Rare, because most operations are refused after it.
                0..16 => Self::Close,
                16..128 => {
                    Self::DeclareToStart { dependent: u.arbitrary()?, dependency: u.arbitrary()? }
                }
                128..192 => {
                    Self::DeclareSoft { dependent: u.arbitrary()?, dependency: u.arbitrary()? }
                }
                _ => Self::Nothing,
            },
            85..=88 => Self::BringUp { service: u.arbitrary()?, dependency: None },
            89..=95 => Self::BringUp { service: u.arbitrary()?, dependency: Some(u.arbitrary()?) },
            96..=99 => Self::WaitFor {
                attempt: u.arbitrary()?,
                dependency: u.arbitrary()?,
                start_only: true,
                mode: u.arbitrary()?,
            },
            206..=216 | 223..=225 | 228..=235 | 242..=243 | 249..=251 => match u
                .arbitrary::<u8>()?
                % 16
            {
                0..=2 => Self::Restart(u.arbitrary()?, u.arbitrary()?),
                kind @ 3..=7 => {
                    Self::Stop { service: u.arbitrary()?, subtree: kind > 5, mode: u.arbitrary()? }
                }
                8..=10 => Self::Start(u.arbitrary()?),
                11..=13 => Self::HoldTurn(u.arbitrary()?),
                _ => Self::DropTurn(u.arbitrary()?),
            },
            200..=219 => Self::Watch { attempt: Some(u.arbitrary()?), service: u.arbitrary()? },
            220..=222 => Self::Watch { attempt: None, service: u.arbitrary()? },
            226..=248 => Self::WaitChanged(u.arbitrary()?, u.arbitrary()?),
            252 => Self::DropWatch(u.arbitrary()?),
            253 => Self::WaitForAny {
                attempt: u.arbitrary()?,
                dependency: u.arbitrary()?,
                start_only: u.arbitrary()?,
                mode: u.arbitrary()?,
            },
            254 => Self::WaitStateChanged(u.arbitrary()?, u.arbitrary()?),
            _ => Self::Nothing,
        })
    }
}

/// A registry, and the operations on it.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) capacity: usize,
    /// The number of services that are registered on the registry builder.
    pub(crate) registered: usize,
    /// The edges that are declared on the registry builder.
    pub(crate) declared: Vec<(Pick, Pick)>,
    pub(crate) observed: bool,
    pub(crate) ops: Vec<Op>,
}

impl Script {
    const MAX_OPS: usize = 160;
}

impl Arbitrary<'_> for Script {
    fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
        let (size, more): (u8, u8) = (u.arbitrary()?, u.arbitrary()?);
        let capacity = 1 + usize::from(size % 8);
        let registered = usize::from(size / 8) % (capacity + 1);
        let edges = more / 2 % 8;
        let declared =
            (0..edges).map(|_| Ok((u.arbitrary()?, u.arbitrary()?))).collect::<Result<_>>()?;
        let mut ops = Vec::new();
        while !u.is_empty() && ops.len() < Self::MAX_OPS {
            ops.push(u.arbitrary()?);
        }
        Ok(Self { capacity, registered, declared, observed: more % 2 == 0, ops })
    }
}
