//! What can be done, decoded from bytes. A regression is a file of bytes: a change here changes what the old
//! ones mean. Where there must be one, add new operations in the place of `Nothing`.

use arbitrary::{Arbitrary, Result, Unstructured};

/// One of what there is when the operation is carried out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pick(u8);

impl Pick {
    /// From this one on it is an id of another registry, where an id is asked for.
    const FOREIGN: u8 = 250;

    pub(crate) fn among(self, many: usize) -> Option<usize> {
        (many > 0).then(|| usize::from(self.0) % many)
    }

    /// `None`: the foreign one.
    pub(crate) fn service(self, services: &[usize]) -> Option<usize> {
        let here = if self.0 < Self::FOREIGN { self.among(services.len()) } else { None };
        here.map(|place| services[place])
    }
}

impl Arbitrary<'_> for Pick {
    fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
        u.arbitrary().map(Self)
    }
}

/// What becomes of a wait that has not ended at its first look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// It is kept, to be polled again.
    Keep,
    /// It is dropped.
    Drop,
    /// It was a blocking one that had no time.
    NoTime,
    /// It was a blocking one whose deadline had come.
    TooLate,
}

impl Arbitrary<'_> for How {
    fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
        Ok(match u.arbitrary::<u8>()? % 8 {
            0 | 1 | 4 | 5 => Self::Keep,
            2 | 6 => Self::Drop,
            3 => Self::NoTime,
            _ => Self::TooLate,
        })
    }
}

/// Through what a value is read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Through {
    Guard,
    Arc,
    /// Two or three guards of one instant.
    Two(Pick),
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
    Provide(Pick),
    DropProvider(Pick),
    Begin(Pick, How),
    WaitFor {
        attempt: Pick,
        dependency: Pick,
        to_start: bool,
        how: How,
    },
    WaitReady(Pick, How),
    WaitOvertaken(Pick, How),
    WaitFailed(Pick, How),
    Poll(Pick),
    DropWait(Pick),
    /// For an attempt; `None` for a reader.
    Watch {
        attempt: Option<Pick>,
        service: Pick,
    },
    WaitChanged(Pick, How),
    DropWatch(Pick),
    Ready(Pick),
    GiveUp {
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
    Get(Pick, Through),
    Cache(Pick),
    GetCached(Pick),
    DropCache(Pick),
    DropHold(Pick),
    Report(Pick),
    ReportForeign(Pick),
    Status(Pick),
    Close,
    /// Provide, begin, perhaps wait for something, and publish: most states are far away without it.
    Up {
        service: Pick,
        on: Option<Pick>,
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
                to_start: false,
                how: u.arbitrary()?,
            },
            30..=32 => Self::WaitReady(u.arbitrary()?, u.arbitrary()?),
            33..=34 => Self::WaitOvertaken(u.arbitrary()?, u.arbitrary()?),
            35..=36 => Self::WaitFailed(u.arbitrary()?, u.arbitrary()?),
            37..=42 => Self::Poll(u.arbitrary()?),
            43 => Self::DropWait(u.arbitrary()?),
            44..=51 => Self::Ready(u.arbitrary()?),
            52..=53 => Self::GiveUp { attempt: u.arbitrary()?, with_reason: true },
            54 => Self::GiveUp { attempt: u.arbitrary()?, with_reason: false },
            55..=57 => Self::Replace(u.arbitrary()?),
            58 => Self::EndRunning { running: u.arbitrary()?, with_reason: true },
            59..=60 => Self::EndRunning { running: u.arbitrary()?, with_reason: false },
            61 => Self::RunningInstance(u.arbitrary()?),
            62..=66 => Self::Fail(u.arbitrary()?),
            67..=69 => Self::Get(u.arbitrary()?, Through::Guard),
            70..=71 => Self::Get(u.arbitrary()?, Through::Arc),
            72 => Self::Get(u.arbitrary()?, Through::Two(u.arbitrary()?)),
            73 => Self::Get(u.arbitrary()?, Through::Three(u.arbitrary()?, u.arbitrary()?)),
            74 => Self::Cache(u.arbitrary()?),
            75..=76 => Self::GetCached(u.arbitrary()?),
            77 => Self::DropCache(u.arbitrary()?),
            78 => Self::DropHold(u.arbitrary()?),
            79..=81 => Self::Report(u.arbitrary()?),
            82 => Self::ReportForeign(u.arbitrary()?),
            83 => Self::Status(u.arbitrary()?),
            84 => match u.arbitrary::<u8>()? {
                // Rare: little happens after it.
                0..16 => Self::Close,
                _ => Self::Nothing,
            },
            85..=88 => Self::Up { service: u.arbitrary()?, on: None },
            89..=95 => Self::Up { service: u.arbitrary()?, on: Some(u.arbitrary()?) },
            96..=99 => Self::WaitFor {
                attempt: u.arbitrary()?,
                dependency: u.arbitrary()?,
                to_start: true,
                how: u.arbitrary()?,
            },
            200..=219 => Self::Watch { attempt: Some(u.arbitrary()?), service: u.arbitrary()? },
            220..=225 => Self::Watch { attempt: None, service: u.arbitrary()? },
            226..=251 => Self::WaitChanged(u.arbitrary()?, u.arbitrary()?),
            252 => Self::DropWatch(u.arbitrary()?),
            _ => Self::Nothing,
        })
    }
}

/// A registry and what is done to it.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) capacity: usize,
    /// How many services the builder registers, and the edges that it declares.
    pub(crate) built: usize,
    pub(crate) declared: Vec<(Pick, Pick)>,
    pub(crate) observed: bool,
    pub(crate) ops: Vec<Op>,
}

impl Script {
    const LONGEST: usize = 160;
}

impl Arbitrary<'_> for Script {
    fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
        let (size, more): (u8, u8) = (u.arbitrary()?, u.arbitrary()?);
        let capacity = 1 + usize::from(size % 8);
        let built = usize::from(size / 8) % (capacity + 1);
        let edges = more / 2 % 8;
        let declared =
            (0..edges).map(|_| Ok((u.arbitrary()?, u.arbitrary()?))).collect::<Result<_>>()?;
        let mut ops = Vec::new();
        while !u.is_empty() && ops.len() < Self::LONGEST {
            ops.push(u.arbitrary()?);
        }
        Ok(Self { capacity, built, declared, observed: more % 2 == 0, ops })
    }
}
