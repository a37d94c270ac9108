//! The checks themselves, on histories written by hand: what is right is accepted, what is wrong is refused.
//!
//! A line is an operation: thread, when it was called, when it had returned, and what it was.

use super::{
    lifetimes::{self, Event, SERVICES, Value as Built},
    linearize::{self, Operation},
    record::{Bounds, Recorded},
    service::{Answer, Answer::*, Call, Phase, Service},
};

type Line<O> = (usize, u64, u64, O);

fn recorded<O: Copy>(lines: &[Line<O>]) -> Vec<Recorded<O>> {
    let record = |&(thread, invoked, answered, what)| {
        let bounds = Bounds { invoked, answered };
        Recorded { thread, what, bounds }
    };
    lines.iter().map(record).collect()
}

// One service: ready with value 1 in generation 0.

fn linearizable(lines: &[Line<(Call, Answer)>]) -> bool {
    let mut threads = vec![vec![]; linearize::THREADS];
    for Recorded { thread, what: (call, answer), bounds } in recorded(lines) {
        threads[thread].push(Recorded { thread, what: Operation { call, answer }, bounds });
    }
    linearize::check(Service::new(0, Phase::Ready(1)), &threads).is_ok()
}

fn get(value: u64) -> (Call, Answer) {
    (Call::Get, Value { generation: 0, value })
}

fn replace(value: u64) -> (Call, Answer) {
    (Call::Replace { generation: 0, value }, Accepted)
}

fn report(value: u64, answer: Answer) -> (Call, Answer) {
    (Call::Report { generation: 0, value }, answer)
}

fn begin(generation: u64) -> (Call, Answer) {
    (Call::Begin, Begun { generation })
}

fn ready(generation: u64, value: u64) -> (Call, Answer) {
    (Call::Ready { generation, value }, Accepted)
}

const DOWN: Answer = Failed { went_down: 1, overtaken: 0 };
const NOTHING: Answer = Failed { went_down: 0, overtaken: 0 };
const FAIL: (Call, Answer) = (Call::Fail, DOWN);
const NOT_READY: (Call, Answer) = (Call::Get, NotReady);

#[test]
fn one_thread() {
    let is = |generation, phase| (Call::Status, Is { generation, phase });
    let restart = [
        (0, 0, 1, get(1)),
        (0, 2, 3, replace(2)),
        (0, 4, 5, get(2)),
        (0, 6, 7, report(1, Replaced)),
        (0, 8, 9, (Call::Begin, Held)),
        (0, 10, 11, FAIL),
        (0, 12, 13, NOT_READY),
        (0, 12, 13, (Call::Why, Is { generation: 1, phase: mainstay::Phase::Down })),
        (0, 14, 15, begin(1)),
        (0, 16, 17, (Call::GiveBack { generation: 1 }, Accepted)),
        (0, 18, 19, begin(1)),
        (0, 20, 21, is(1, mainstay::Phase::Starting)),
        (0, 22, 23, report(1, AlreadyFailed)),
        (0, 24, 25, (Call::IsOvertaken { generation: 1 }, No)),
        (0, 26, 27, (Call::Fail, Failed { went_down: 0, overtaken: 1 })),
        (0, 28, 29, (Call::IsOvertaken { generation: 1 }, Yes)),
        (0, 30, 31, (Call::Ready { generation: 1, value: 3 }, Refused)),
        (0, 32, 33, begin(2)),
        (0, 34, 35, ready(2, 4)),
        (0, 36, 37, (Call::Replace { generation: 0, value: 5 }, Refused)),
        (0, 38, 39, (Call::Get, Value { generation: 2, value: 4 })),
        (0, 40, 41, (Call::End { generation: 2 }, DOWN)),
        (0, 42, 43, (Call::Fail, NOTHING)),
        (0, 44, 45, is(3, mainstay::Phase::Down)),
    ];
    assert!(linearizable(&restart));
    // Another answer at any place is wrong: all of them are looked at.
    for wrong in 0..restart.len() {
        let mut restart = restart;
        let answer = &mut restart[wrong].3.1;
        *answer = if *answer == Replaced { AlreadyFailed } else { Replaced };
        assert!(!linearizable(&restart), "operation {wrong}");
    }
}

#[test]
fn what_overlaps_may_be_seen_before_or_after() {
    for seen in [get(1), get(2)] {
        assert!(linearizable(&[(0, 0, 9, replace(2)), (1, 3, 4, seen)]));
        assert!(linearizable(&[(0, 0, 9, replace(2)), (1, 3, 20, seen)]));
    }
    for seen in [get(1), NOT_READY] {
        assert!(linearizable(&[(0, 0, 9, FAIL), (1, 3, 4, seen)]));
    }
    // Equal stamps say nothing.
    assert!(linearizable(&[(0, 0, 5, replace(2)), (1, 5, 6, get(1))]));
}

#[test]
fn a_stale_read() {
    assert!(!linearizable(&[(0, 0, 1, replace(2)), (1, 2, 3, get(1))]));
    assert!(!linearizable(&[(0, 0, 1, FAIL), (1, 2, 3, get(1))]));
}

#[test]
fn a_read_back_and_forth() {
    let one_after_another = [(1, 1, 2, get(2)), (2, 3, 4, get(1))];
    for reads in [one_after_another, [(1, 1, 2, get(2)), (1, 3, 4, get(1))]] {
        assert!(!linearizable(&[(0, 0, 9, replace(2)), reads[0], reads[1]]));
    }
    // Two readers that disagree on which of two values was first.
    let [two, three] = [(0, 0, 20, replace(2)), (1, 0, 20, replace(3))];
    let reads = |thread, first, then| [(thread, 1, 2, get(first)), (thread, 3, 4, get(then))];
    let [a, b] = reads(2, 2, 3);
    let [c, d] = reads(3, 3, 2);
    assert!(linearizable(&[two, three, a, b]));
    assert!(!linearizable(&[two, three, a, b, c, d]));
}

#[test]
fn a_lost_replacement() {
    let both = [(0, 0, 3, replace(2)), (1, 1, 4, replace(3))];
    assert!(!linearizable(&[both[0], both[1], (0, 5, 6, get(1))]));
    assert!(!linearizable(&[(0, 0, 1, FAIL), (1, 2, 3, replace(2))]));
}

#[test]
fn a_refused_value_that_is_read() {
    let refused =
        |to| [(0, 0, 1, FAIL), (1, 0, to, (Call::Replace { generation: 0, value: 2 }, Refused))];
    let [fail, replace] = refused(2);
    assert!(linearizable(&[fail, replace]));
    assert!(!linearizable(&[fail, replace, (2, 0, 2, get(2))]));
}

#[test]
fn a_publication_that_should_have_been_refused() {
    let fail = (Call::Fail, Failed { went_down: 0, overtaken: 1 });
    let attempt = [(0, 0, 1, FAIL), (0, 2, 3, begin(1)), (1, 4, 5, fail)];
    assert!(linearizable(&attempt));
    let [a, b, c] = attempt;
    assert!(!linearizable(&[a, b, c, (0, 6, 7, ready(1, 2))]));
}

#[test]
fn two_attempts_at_once() {
    let begins = [(0, 2, 9, begin(1)), (1, 2, 9, begin(1))];
    assert!(!linearizable(&[(0, 0, 1, FAIL), begins[0], begins[1]]));
}

#[test]
fn a_report_may_return_early() {
    // The failure is on its way: condemned, and readable still.
    let early = [(0, 0, 9, FAIL), (1, 1, 2, report(1, AlreadyFailed)), (1, 3, 4, get(1))];
    assert!(linearizable(&early));
    assert!(!linearizable(&early[1..]), "nobody fails it");
    // One that says that it failed it does not.
    assert!(!linearizable(&[(1, 1, 2, report(1, DOWN)), (1, 3, 4, get(1))]));
}

#[test]
fn a_report_that_hits_the_next_one() {
    let restart = [(0, 0, 1, FAIL), (0, 2, 3, begin(1)), (0, 4, 5, ready(1, 2))];
    let [a, b, c] = restart;
    assert!(linearizable(&[a, b, c, (1, 6, 7, report(1, AlreadyFailed))]));
    assert!(!linearizable(&[a, b, c, (1, 6, 7, report(1, DOWN))]));
}

#[test]
fn two_failures() {
    let is = |generation| (Call::Status, Is { generation, phase: mainstay::Phase::Down });
    // Both have found it up: one takes it down, or the other does, and both count. Or one came late.
    for generation in [1, 2] {
        let late = (1, 0, 9, (Call::Fail, NOTHING));
        assert!(linearizable(&[(0, 0, 9, FAIL), late, (0, 10, 11, is(generation))]));
    }
    // The later one raised first, for both; what the first one does then changes nothing.
    let late = [(0, 0, 9, report(1, NOTHING)), (1, 1, 2, FAIL), (1, 3, 4, is(2))];
    assert!(linearizable(&[late[0], late[1], late[2], (0, 10, 11, is(2))]));
    assert!(!linearizable(&[(0, 0, 9, FAIL), (1, 0, 9, FAIL)]), "it went down once");
    assert!(!linearizable(&[(0, 0, 1, (Call::Fail, NOTHING))]), "it was up");
    assert!(!linearizable(&[(0, 0, 1, FAIL), (0, 2, 3, is(2))]));
}

/// Without its memory the search would try every order of these, and not come to an end.
#[test]
fn what_was_tried_is_not_tried_again() {
    let gets = (0..48).map(|n| (n % 4, 0, 100, get(1)));
    let mut lines: Vec<_> = gets.collect();
    lines.push((0, 0, 100, get(2)));
    assert!(!linearizable(&lines));
}

// Several services: 0, and 1 that rests on it, and 2 that rests on both.

fn value(mark: u64, service: usize, generation: u64, on: &[(usize, u64)]) -> Built {
    let nothing = [None; SERVICES];
    let mut value =
        Built { mark, service, generation, version: 0, on: nothing, started_with: nothing };
    for &(service, generation) in on {
        value.on[service] = Some(generation);
    }
    value
}

/// Where somebody may have failed each at any time.
fn fits(lines: &[Line<Event>]) -> bool {
    let mut lines = lines.to_vec();
    lines.extend((0..SERVICES).map(|service| (3, 0, 100, Event::MayHaveFailed { service })));
    fits_as_it_is(&lines)
}

fn fits_as_it_is(lines: &[Line<Event>]) -> bool {
    let mut all = vec![
        (0, 0, 1, Event::Published(value(10, 0, 0, &[]))),
        (0, 2, 3, Event::Published(value(11, 1, 0, &[(0, 0)]))),
        (0, 4, 5, Event::Published(value(12, 2, 0, &[(0, 0), (1, 0)]))),
    ];
    all.extend_from_slice(lines);
    lifetimes::check(&recorded(&all)).is_ok()
}

fn read(marks: &[u64]) -> Event {
    Event::Read([0, 1, 2].map(|i| marks.get(i).copied()))
}

fn met(service: usize, generation: u64) -> Event {
    Event::Met { service, generation }
}

#[test]
fn reads_of_what_is_there() {
    assert!(fits(&[(1, 10, 11, read(&[10])), (1, 12, 13, read(&[10, 11, 12]))]));
    assert!(fits(&[(1, 0, 9, read(&[12])), (1, 10, 11, met(0, 0))]));
}

#[test]
fn a_read_of_nothing_that_was_published() {
    assert!(!fits(&[(1, 10, 11, read(&[13]))]));
    let refused = value(13, 1, 0, &[(0, 0)]);
    assert!(!fits(&[(0, 10, 11, Event::Refused(refused)), (1, 10, 11, read(&[13]))]));
    assert!(!fits(&[
        (0, 10, 11, Event::Published(Built { version: 1, ..refused })),
        (1, 8, 9, read(&[13]))
    ]));
}

#[test]
fn i1_after_a_failure_was_seen() {
    // What it rests on failed; over one step, and over two.
    for mark in [11, 12] {
        assert!(!fits(&[(1, 10, 11, met(0, 1)), (2, 12, 13, read(&[mark]))]));
        assert!(fits(&[(1, 10, 12, met(0, 1)), (2, 11, 13, read(&[mark]))]), "at the same time");
    }
    // What rests on it failed.
    assert!(fits(&[(1, 10, 11, met(2, 1)), (2, 12, 13, read(&[11]))]));
    assert!(!fits(&[(1, 10, 11, met(2, 1)), (2, 12, 13, read(&[12]))]));
    // One saw it earlier than another who saw less.
    assert!(!fits(&[(1, 10, 11, met(0, 2)), (3, 10, 30, met(0, 1)), (2, 12, 13, read(&[11]))]));
    // It was seen by a publication that was refused, or by a later value, or by what rests on that.
    let refused = (1, 10, 11, Event::Refused(value(20, 0, 0, &[])));
    assert!(!fits(&[refused, (2, 12, 13, read(&[11]))]));
    let later = (1, 10, 11, Event::Published(value(20, 0, 1, &[])));
    assert!(!fits(&[later, (2, 12, 13, read(&[11]))]));
    let rests = (1, 10, 11, Event::Published(value(20, 3, 0, &[(0, 1)])));
    assert!(!fits(&[rests, (2, 12, 13, read(&[11]))]));
}

#[test]
fn a_replaced_value() {
    let new = Built { version: 1, ..value(20, 0, 0, &[]) };
    let replaced = (0, 10, 11, Event::Published(new));
    assert!(!fits(&[replaced, (1, 12, 13, read(&[10]))]));
    assert!(fits(&[replaced, (1, 11, 13, read(&[10]))]));
    assert!(fits(&[replaced, (1, 12, 13, read(&[11, 12]))]), "what rests on it stays");
    assert!(!fits(&[(0, 10, 19, replaced.3), (1, 12, 13, read(&[20])), (2, 14, 15, read(&[10]))]));
}

#[test]
fn a_failure_that_has_returned() {
    for mark in [10, 11, 12] {
        let failed = Event::Failed { service: 0 };
        assert!(!fits(&[(1, 10, 11, failed), (2, 12, 13, read(&[mark]))]));
        assert!(fits(&[(1, 10, 12, failed), (2, 11, 13, read(&[mark]))]));
    }
    assert!(fits(&[(1, 10, 11, Event::Failed { service: 1 }), (2, 12, 13, read(&[10]))]));
    // A reader knew that it was there, before its publication had returned.
    let published = (0, 10, 40, Event::Published(value(20, 3, 0, &[])));
    let known = [published, (1, 11, 12, read(&[20])), (2, 13, 14, Event::Failed { service: 3 })];
    assert!(!fits(&[known[0], known[1], known[2], (2, 15, 16, read(&[20]))]));
    // It was called before the value was known to be there.
    assert!(fits(&[(1, 1, 11, Event::Failed { service: 0 }), (2, 12, 13, read(&[10]))]));
}

#[test]
fn values_of_one_instant() {
    // 10 was there until 20 took its place, at 30 at the latest; 11 until 25 at the latest.
    let new = Built { version: 1, ..value(20, 0, 0, &[]) };
    let history = [(0, 28, 30, Event::Published(new)), (1, 20, 25, met(1, 1))];
    let with = |read| fits(&[history[0], history[1], read]);
    assert!(with((2, 10, 40, read(&[10, 11]))));
    assert!(with((2, 10, 40, read(&[20]))));
    assert!(with((2, 10, 40, read(&[11]))));
    assert!(!with((2, 10, 40, read(&[20, 11]))), "11 was over before 20 came");
}

#[test]
fn a_publication_on_what_has_failed() {
    let built = |generation| value(20, 1, 1, &[(0, generation)]);
    let seen = (1, 10, 11, met(0, 1));
    assert!(!fits(&[seen, (0, 12, 13, Event::Published(built(0)))]));
    assert!(fits(&[seen, (0, 12, 13, Event::Refused(built(0)))]));
    assert!(fits(&[seen, (0, 12, 13, Event::Published(built(1)))]));
    // From two generations of one service, over two ways: it rests on the earlier.
    let mut torn = value(20, 2, 1, &[(0, 1)]);
    torn.add(&value(11, 1, 0, &[(0, 0)]));
    assert_eq!(torn.on[..2], [Some(0), Some(0)]);
    assert!(!fits(&[seen, (0, 12, 13, Event::Published(torn))]));
}

#[test]
fn what_it_was_started_with() {
    let mut built = value(20, 3, 0, &[]);
    built.start_with(&value(12, 2, 0, &[(0, 0), (1, 0)]));
    let published = (0, 12, 13, Event::Published(built));
    assert!(fits(&[published]));
    // It, or what it rests on, had failed before; at the same time; afterwards.
    for service in [0, 2] {
        for failed in [met(service, 1), Event::Failed { service }] {
            assert!(!fits(&[(1, 10, 11, failed), published]));
            assert!(fits(&[(1, 10, 12, failed), published]));
            assert!(fits(&[(1, 14, 15, failed), published, (1, 16, 17, read(&[20]))]));
        }
    }
    assert!(fits(&[(1, 10, 11, met(0, 1)), (0, 12, 13, Event::Refused(built))]));
}

#[test]
fn a_failure_for_nothing() {
    let over = (1, 20, 21, met(2, 1));
    assert!(!fits_as_it_is(&[over]));
    for service in [0, 1, 2] {
        let failed = Event::MayHaveFailed { service };
        assert!(fits_as_it_is(&[over, (2, 18, 19, failed)]), "of what it rests on");
        assert!(!fits_as_it_is(&[over, (2, 22, 23, failed)]), "later");
    }
    let other = Event::Failed { service: 3 };
    assert!(!fits_as_it_is(&[over, (2, 18, 19, other)]), "of another one");
    // What it was built from once, perhaps.
    assert!(fits_as_it_is(&[over, (2, 5, 19, other)]));
    assert!(!fits_as_it_is(&[over, (2, 2, 3, other)]), "before it was published");
    // What it rests on was published, and that had not returned.
    let slow = (0, 6, 20, Event::Published(value(20, 3, 0, &[])));
    let known = (1, 7, 8, read(&[20]));
    let above = (2, 9, 10, Event::Published(value(21, 4, 0, &[(3, 0)])));
    let over = (1, 30, 31, met(4, 1));
    let failed = |at| (3, at, at + 1, Event::Failed { service: 2 });
    let history =
        |at| fits_as_it_is(&[slow, known, above, over, failed(at), (1, 32, 33, met(2, 1))]);
    assert!(history(15) && !history(25));
}
