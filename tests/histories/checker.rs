//! The checks themselves, on histories that are written by hand: correct ones are accepted, and
//! wrong ones are refused.
//!
//! A line is an operation: its thread, when it was called, when it had returned, and the
//! operation.

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

// One service, which is ready with value 1 in generation 0 at first.

fn linearizable(lines: &[Line<(Call, Answer)>]) -> bool {
    let mut threads = vec![vec![]; linearize::THREADS];
    for Recorded { thread, what: (call, answer), bounds } in recorded(lines) {
        threads[thread].push(Recorded { thread, what: Operation { call, answer }, bounds });
    }
    linearize::check(Service::new(0, Phase::Ready(1)), &threads).is_ok()
}

fn get(value: u64) -> (Call, Answer) {
    get_revision(value - 1, value)
}

fn get_revision(revision: u64, value: u64) -> (Call, Answer) {
    (Call::Get, Value { generation: 0, revision, value })
}

fn replace(value: u64) -> (Call, Answer) {
    (Call::Replace { generation: 0, value }, Accepted)
}

/// A report of the instance that the service has at first, or of one that has replaced it.
fn fail_instance(revision: u64, answer: Answer) -> (Call, Answer) {
    (Call::FailInstance { generation: 0, revision: Some(revision) }, answer)
}

fn begin(generation: u64) -> (Call, Answer) {
    (Call::Begin, Begun { generation })
}

fn ready(generation: u64, value: u64) -> (Call, Answer) {
    (Call::Ready { generation, value }, Accepted)
}

const DOWN: Answer = Failed { failed: 1, invalidated: 0 };
const NOTHING: Answer = Failed { failed: 0, invalidated: 0 };
const FAIL: (Call, Answer) = (Call::Fail, DOWN);
const NOT_READY: (Call, Answer) = (Call::Get, NotReady);

#[test]
fn the_order_of_one_thread_is_checked_at_every_answer() {
    let is = |generation, phase| (Call::Status, Is { generation, phase });
    let restart = [
        (0, 0, 1, get(1)),
        (0, 2, 3, replace(2)),
        (0, 4, 5, get(2)),
        (0, 6, 7, fail_instance(0, Replaced)),
        (0, 8, 9, (Call::Begin, Held)),
        (0, 10, 11, FAIL),
        (0, 12, 13, NOT_READY),
        (0, 12, 13, (Call::Why, Is { generation: 1, phase: mainstay::Phase::Down })),
        (0, 14, 15, begin(1)),
        (0, 16, 17, (Call::GiveBack { generation: 1 }, Accepted)),
        (0, 18, 19, begin(1)),
        (0, 20, 21, is(1, mainstay::Phase::Starting)),
        (0, 22, 23, fail_instance(0, AlreadyFailed)),
        (0, 24, 25, (Call::IsInvalidated { generation: 1 }, No)),
        (0, 26, 27, (Call::Fail, Failed { failed: 0, invalidated: 1 })),
        (0, 28, 29, (Call::IsInvalidated { generation: 1 }, Yes)),
        (0, 30, 31, (Call::Ready { generation: 1, value: 3 }, Refused)),
        (0, 32, 33, begin(2)),
        (0, 34, 35, ready(2, 4)),
        (0, 36, 37, (Call::Replace { generation: 0, value: 5 }, Refused)),
        (0, 38, 39, (Call::Get, Value { generation: 2, revision: 0, value: 4 })),
        (0, 40, 41, (Call::End { generation: 2 }, DOWN)),
        (0, 42, 43, (Call::Fail, NOTHING)),
        (0, 44, 45, is(3, mainstay::Phase::Down)),
    ];
    assert!(linearizable(&restart));
    // Each answer is checked: another answer at any place is refused.
    for wrong in 0..restart.len() {
        let mut restart = restart;
        let answer = &mut restart[wrong].3.1;
        *answer = if *answer == Replaced { AlreadyFailed } else { Replaced };
        assert!(!linearizable(&restart), "operation {wrong}");
    }
}

#[test]
fn a_read_may_see_an_overlapping_change_or_not() {
    for seen in [get(1), get(2)] {
        assert!(linearizable(&[(0, 0, 9, replace(2)), (1, 3, 4, seen)]));
        assert!(linearizable(&[(0, 0, 9, replace(2)), (1, 3, 20, seen)]));
    }
    for seen in [get(1), NOT_READY] {
        assert!(linearizable(&[(0, 0, 9, FAIL), (1, 3, 4, seen)]));
    }
    // Equal stamps determine no order.
    assert!(linearizable(&[(0, 0, 5, replace(2)), (1, 5, 6, get(1))]));
}

#[test]
fn a_read_of_a_value_replaced_or_failed_before_is_refused() {
    assert!(!linearizable(&[(0, 0, 1, replace(2)), (1, 2, 3, get(1))]));
    assert!(!linearizable(&[(0, 0, 1, FAIL), (1, 2, 3, get(1))]));
}

#[test]
fn reads_that_disagree_on_the_order_of_values_are_refused() {
    let one_after_another = [(1, 1, 2, get(2)), (2, 3, 4, get(1))];
    for reads in [one_after_another, [(1, 1, 2, get(2)), (1, 3, 4, get(1))]] {
        assert!(!linearizable(&[(0, 0, 9, replace(2)), reads[0], reads[1]]));
    }
    // Two readers that disagree on the order of two values.
    let [two, three] = [(0, 0, 20, replace(2)), (1, 0, 20, replace(3))];
    let reads = |thread, first, then| [(thread, 1, 2, get(first)), (thread, 3, 4, get(then))];
    let [a, b] = reads(2, 2, 3);
    let [c, d] = reads(3, 3, 2);
    assert!(linearizable(&[two, three, a, b]));
    assert!(!linearizable(&[two, three, a, b, c, d]));
}

#[test]
fn a_lost_replacement_is_refused() {
    let both = [(0, 0, 3, replace(2)), (1, 1, 4, replace(3))];
    assert!(!linearizable(&[both[0], both[1], (0, 5, 6, get(1))]));
    assert!(!linearizable(&[(0, 0, 1, FAIL), (1, 2, 3, replace(2))]));
}

#[test]
fn a_read_of_a_refused_value_is_refused() {
    let refused =
        |to| [(0, 0, 1, FAIL), (1, 0, to, (Call::Replace { generation: 0, value: 2 }, Refused))];
    let [fail, replace] = refused(2);
    assert!(linearizable(&[fail, replace]));
    assert!(!linearizable(&[fail, replace, (2, 0, 2, get(2))]));
}

#[test]
fn an_accepted_publication_of_an_invalidated_attempt_is_refused() {
    let fail = (Call::Fail, Failed { failed: 0, invalidated: 1 });
    let attempt = [(0, 0, 1, FAIL), (0, 2, 3, begin(1)), (1, 4, 5, fail)];
    assert!(linearizable(&attempt));
    let [a, b, c] = attempt;
    assert!(!linearizable(&[a, b, c, (0, 6, 7, ready(1, 2))]));
}

#[test]
fn two_attempts_at_once_are_refused() {
    let begins = [(0, 2, 9, begin(1)), (1, 2, 9, begin(1))];
    assert!(!linearizable(&[(0, 0, 1, FAIL), begins[0], begins[1]]));
}

#[test]
fn a_report_may_return_already_failed_while_the_failure_is_on_its_way() {
    // The failure is on its way: the service is condemned, and still readable.
    let early = [(0, 0, 9, FAIL), (1, 1, 2, fail_instance(0, AlreadyFailed)), (1, 3, 4, get(1))];
    assert!(linearizable(&early));
    assert!(!linearizable(&early[1..]), "no call fails it");
    // The service is not readable after a report that has failed it.
    assert!(!linearizable(&[(1, 1, 2, fail_instance(0, DOWN)), (1, 3, 4, get(1))]));
}

#[test]
fn begin_waits_for_an_abandoned_value_until_the_failure_returns() {
    let end = (0, 1, 2, (Call::End { generation: 0 }, NOTHING));
    let held = |from| (2, from, from + 1, (Call::Begin, Held));
    let abandoned = [(1, 0, 9, FAIL), end, (2, 3, 4, NOT_READY), held(5)];
    assert!(linearizable(&abandoned));
    let [fail, _, not_ready, _] = abandoned;
    assert!(!linearizable(&[fail, not_ready, held(5)]), "no call abandons the value");
    assert!(!linearizable(&[fail, end, not_ready, held(10)]), "the failure has returned");
    // The call that ends the handle may remove the value itself.
    let late_end = (0, 1, 20, end.3);
    assert!(linearizable(&[fail, late_end, held(10)]));
    assert!(!linearizable(&[fail, late_end, held(21)]));
    // So may the drop of an earlier instance, which is no operation.
    let replaced = [(0, 0, 1, replace(2)), (1, 2, 9, FAIL), (0, 3, 4, end.3), held(10)];
    assert!(linearizable(&replaced));
    let [replace, fail, end, held] = replaced;
    assert!(linearizable(&[replace, fail, end, held, (2, 12, 13, begin(1))]));
}

#[test]
fn a_report_that_fails_the_next_instance_is_refused() {
    let restart = [(0, 0, 1, FAIL), (0, 2, 3, begin(1)), (0, 4, 5, ready(1, 2))];
    let [a, b, c] = restart;
    assert!(linearizable(&[a, b, c, (1, 6, 7, fail_instance(0, AlreadyFailed))]));
    assert!(!linearizable(&[a, b, c, (1, 6, 7, fail_instance(0, DOWN))]));
}

#[test]
fn a_report_and_a_replacement_of_one_instance_that_both_succeed_are_refused() {
    let report = |answer| (0, 0, 9, fail_instance(0, answer));
    let refused = (Call::Replace { generation: 0, value: 2 }, Refused);
    assert!(!linearizable(&[report(DOWN), (1, 0, 9, replace(2))]));
    assert!(linearizable(&[report(DOWN), (1, 0, 9, refused)]));
    assert!(linearizable(&[report(Replaced), (1, 0, 9, replace(2))]));
    assert!(!linearizable(&[report(Replaced), (1, 0, 9, refused)]));
    // The same for the next revision, and for a report of any revision.
    let second = [(0, 0, 1, replace(2)), (0, 2, 9, fail_instance(1, DOWN))];
    assert!(linearizable(&second));
    assert!(!linearizable(&[second[0], second[1], (1, 2, 9, replace(3))]));
    let any = (Call::FailInstance { generation: 0, revision: None }, DOWN);
    assert!(linearizable(&[second[0], (0, 2, 9, any), (1, 2, 9, replace(3))]));
}

#[test]
fn a_replacement_may_be_accepted_while_a_failure_is_on_its_way() {
    let early = [(0, 0, 20, FAIL), (1, 1, 2, fail_instance(0, AlreadyFailed))];
    for answer in [Accepted, Refused] {
        let replace = (1, 3, 4, (Call::Replace { generation: 0, value: 2 }, answer));
        assert!(linearizable(&[early[0], early[1], replace]));
    }
    let refused = (0, 0, 1, (Call::Replace { generation: 0, value: 2 }, Refused));
    assert!(!linearizable(&[refused]), "no call fails it");
}

#[test]
fn a_read_with_another_revision_is_refused() {
    let replaced = (0, 0, 1, replace(2));
    assert!(linearizable(&[replaced, (0, 2, 3, get_revision(1, 2))]));
    for revision in [0, 2] {
        assert!(!linearizable(&[replaced, (0, 2, 3, get_revision(revision, 2))]));
    }
}

#[test]
fn a_failure_that_changes_a_service_that_is_down_is_refused() {
    let is = |generation| (Call::Status, Is { generation, phase: mainstay::Phase::Down });
    let nothing = (Call::Fail, NOTHING);
    let down = [(0, 0, 1, FAIL), (0, 2, 3, nothing)];
    assert!(linearizable(&[down[0], down[1], (0, 4, 5, is(1)), (0, 6, 7, begin(1))]));
    assert!(!linearizable(&[down[0], down[1], (0, 4, 5, is(2))]));
    // An attempt that begins during the failure may be found or not.
    let invalidates = (Call::Fail, Failed { failed: 0, invalidated: 1 });
    for fail in [nothing, invalidates] {
        assert!(linearizable(&[down[0], (0, 2, 9, fail), (1, 2, 9, begin(1))]));
    }
    assert!(!linearizable(&[down[0], (0, 2, 9, invalidates)]), "no attempt has begun");
}

#[test]
fn of_two_overlapping_failures_exactly_one_takes_the_service_down() {
    let is = |generation| (Call::Status, Is { generation, phase: mainstay::Phase::Down });
    // If both read a ready service, both increment the generation, and either takes it down. If one
    // is late, it increments nothing.
    for generation in [1, 2] {
        let late = (1, 0, 9, (Call::Fail, NOTHING));
        assert!(linearizable(&[(0, 0, 9, FAIL), late, (0, 10, 11, is(generation))]));
    }
    // The later one takes the service down for both. The rest of the first one changes nothing.
    let late = [(0, 0, 9, fail_instance(0, NOTHING)), (1, 1, 2, FAIL), (1, 3, 4, is(2))];
    assert!(linearizable(&[late[0], late[1], late[2], (0, 10, 11, is(2))]));
    assert!(!linearizable(&[(0, 0, 9, FAIL), (1, 0, 9, FAIL)]), "it was taken down once");
    assert!(!linearizable(&[(0, 0, 1, (Call::Fail, NOTHING))]), "it was ready");
    assert!(!linearizable(&[(0, 0, 1, FAIL), (0, 2, 3, is(2))]));
}

/// Without the cache the search would try every order of these operations, and would not end.
#[test]
fn the_search_tries_no_state_twice() {
    let gets = (0..48).map(|n| (n % 4, 0, 100, get(1)));
    let mut lines: Vec<_> = gets.collect();
    lines.push((0, 0, 100, get(2)));
    assert!(!linearizable(&lines));
}

// Several services: 0, and 1 that depends on 0, and 2 that depends on both.

fn value(mark: u64, service: usize, generation: u64, on: &[(usize, u64)]) -> Built {
    let mut value = Built::new(mark, service, generation);
    for &(service, generation) in on {
        value.on[service] = Some(generation);
    }
    value
}

/// Whether a history is accepted if each service may have been failed at any time.
fn fits(lines: &[Line<Event>]) -> bool {
    let mut lines = lines.to_vec();
    lines.extend((0..SERVICES).map(|service| (3, 0, 100, Event::MayHaveFailed { service })));
    fits_exactly(&lines)
}

/// Whether a history is accepted.
fn fits_exactly(lines: &[Line<Event>]) -> bool {
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
fn reads_of_current_values_are_accepted() {
    assert!(fits(&[(1, 10, 11, read(&[10])), (1, 12, 13, read(&[10, 11, 12]))]));
    assert!(fits(&[(1, 0, 9, read(&[12])), (1, 10, 11, met(0, 0))]));
}

#[test]
fn a_read_of_a_value_that_was_not_published_is_refused() {
    assert!(!fits(&[(1, 10, 11, read(&[13]))]));
    let refused = value(13, 1, 0, &[(0, 0)]);
    assert!(!fits(&[(0, 10, 11, Event::Refused(refused)), (1, 10, 11, read(&[13]))]));
    assert!(!fits(&[
        (0, 10, 11, Event::Published(Built { version: 1, ..refused })),
        (1, 8, 9, read(&[13]))
    ]));
}

#[test]
fn a_read_of_a_dependent_after_a_seen_failure_is_refused_as_i1() {
    // A dependency failed: a direct one, and an indirect one.
    for mark in [11, 12] {
        assert!(!fits(&[(1, 10, 11, met(0, 1)), (2, 12, 13, read(&[mark]))]));
        assert!(fits(&[(1, 10, 12, met(0, 1)), (2, 11, 13, read(&[mark]))]), "at the same time");
    }
    // A dependent failed.
    assert!(fits(&[(1, 10, 11, met(2, 1)), (2, 12, 13, read(&[11]))]));
    assert!(!fits(&[(1, 10, 11, met(2, 1)), (2, 12, 13, read(&[12]))]));
    // One thread saw a later generation earlier than another thread saw an earlier one.
    assert!(!fits(&[(1, 10, 11, met(0, 2)), (3, 10, 30, met(0, 1)), (2, 12, 13, read(&[11]))]));
    // A refused publication saw it, or a later value, or a dependent of that.
    let refused = (1, 10, 11, Event::Refused(value(20, 0, 0, &[])));
    assert!(!fits(&[refused, (2, 12, 13, read(&[11]))]));
    let later = (1, 10, 11, Event::Published(value(20, 0, 1, &[])));
    assert!(!fits(&[later, (2, 12, 13, read(&[11]))]));
    let dependent = (1, 10, 11, Event::Published(value(20, 3, 0, &[(0, 1)])));
    assert!(!fits(&[dependent, (2, 12, 13, read(&[11]))]));
}

#[test]
fn a_read_of_a_replaced_value_is_refused() {
    let new = Built { version: 1, ..value(20, 0, 0, &[]) };
    let replaced = (0, 10, 11, Event::Published(new));
    assert!(!fits(&[replaced, (1, 12, 13, read(&[10]))]));
    assert!(fits(&[replaced, (1, 11, 13, read(&[10]))]));
    assert!(
        fits(&[replaced, (1, 12, 13, read(&[11, 12]))]),
        "a replacement does not affect dependents"
    );
    assert!(!fits(&[(0, 10, 19, replaced.3), (1, 12, 13, read(&[20])), (2, 14, 15, read(&[10]))]));
}

#[test]
fn a_read_after_fail_has_returned_is_refused() {
    for mark in [10, 11, 12] {
        let failed = Event::Failed { service: 0 };
        assert!(!fits(&[(1, 10, 11, failed), (2, 12, 13, read(&[mark]))]));
        assert!(fits(&[(1, 10, 12, failed), (2, 11, 13, read(&[mark]))]));
    }
    assert!(fits(&[(1, 10, 11, Event::Failed { service: 1 }), (2, 12, 13, read(&[10]))]));
    // A reader knew the value before its publication had returned.
    let published = (0, 10, 40, Event::Published(value(20, 3, 0, &[])));
    let known = [published, (1, 11, 12, read(&[20])), (2, 13, 14, Event::Failed { service: 3 })];
    assert!(!fits(&[known[0], known[1], known[2], (2, 15, 16, read(&[20]))]));
    // The failure was called before the value was known to be ready.
    assert!(fits(&[(1, 1, 11, Event::Failed { service: 0 }), (2, 12, 13, read(&[10]))]));
}

#[test]
fn values_that_were_never_current_together_are_refused() {
    // 10 was current until 20 replaced it, at 30 at the latest, and 11 until 25 at the latest.
    let new = Built { version: 1, ..value(20, 0, 0, &[]) };
    let history = [(0, 28, 30, Event::Published(new)), (1, 20, 25, met(1, 1))];
    let with = |read| fits(&[history[0], history[1], read]);
    assert!(with((2, 10, 40, read(&[10, 11]))));
    assert!(with((2, 10, 40, read(&[20]))));
    assert!(with((2, 10, 40, read(&[11]))));
    assert!(!with((2, 10, 40, read(&[20, 11]))), "11 had ended before 20 was published");
}

#[test]
fn an_accepted_publication_from_a_failed_dependency_is_refused() {
    let built = |generation| value(20, 1, 1, &[(0, generation)]);
    let seen = (1, 10, 11, met(0, 1));
    assert!(!fits(&[seen, (0, 12, 13, Event::Published(built(0)))]));
    assert!(fits(&[seen, (0, 12, 13, Event::Refused(built(0)))]));
    assert!(fits(&[seen, (0, 12, 13, Event::Published(built(1)))]));
    // From two generations of one service, along two paths: the earlier one counts.
    let mut torn = value(20, 2, 1, &[(0, 1)]);
    torn.add(&value(11, 1, 0, &[(0, 0)]));
    assert_eq!(torn.on[..2], [Some(0), Some(0)]);
    assert!(!fits(&[seen, (0, 12, 13, Event::Published(torn))]));
}

#[test]
fn an_accepted_publication_after_a_start_only_dependency_failed_is_refused() {
    let mut built = value(20, 3, 0, &[]);
    built.start_with(&value(12, 2, 0, &[(0, 0), (1, 0)]));
    let published = (0, 12, 13, Event::Published(built));
    assert!(fits(&[published]));
    // That service, or a dependency of it, failed before; at the same time; afterwards.
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
fn an_end_without_a_failure_that_explains_it_is_refused() {
    let ended = (1, 20, 21, met(2, 1));
    assert!(!fits_exactly(&[ended]));
    for service in [0, 1, 2] {
        let failed = Event::MayHaveFailed { service };
        assert!(fits_exactly(&[ended, (2, 18, 19, failed)]), "a failure of a dependency");
        assert!(!fits_exactly(&[ended, (2, 22, 23, failed)]), "a later failure");
    }
    let other = Event::Failed { service: 3 };
    assert!(!fits_exactly(&[ended, (2, 18, 19, other)]), "a failure of another service");
    // A service that it may once have been built from.
    assert!(fits_exactly(&[ended, (2, 5, 19, other)]));
    assert!(!fits_exactly(&[ended, (2, 2, 3, other)]), "before it was published");
    // The publication of a dependency had not returned.
    let slow = (0, 6, 20, Event::Published(value(20, 3, 0, &[])));
    let known = (1, 7, 8, read(&[20]));
    let above = (2, 9, 10, Event::Published(value(21, 4, 0, &[(3, 0)])));
    let ended = (1, 30, 31, met(4, 1));
    let failed = |at| (3, at, at + 1, Event::Failed { service: 2 });
    let history =
        |at| fits_exactly(&[slow, known, above, ended, failed(at), (1, 32, 33, met(2, 1))]);
    assert!(history(15) && !history(25));
}

/// The new values 20 and 21 of the services 0 and 1, which are switched, while 12 depends on both.
fn switched(invoked: u64, answered: u64) -> [Line<Event>; 2] {
    let of = |value: Built| Event::Switched { value: Built { version: 1, ..value }, switch: 7 };
    let values = [value(20, 0, 0, &[]), value(21, 1, 0, &[(0, 0)])];
    values.map(|value| (0, invoked, answered, of(value)))
}

#[test]
fn a_read_of_an_old_value_after_a_new_one_of_another_member_is_refused_as_r1() {
    let [a, b] = switched(10, 40);
    for (new, old) in [(20, 11), (21, 10)] {
        let first = (1, 11, 12, read(&[new]));
        assert!(fits(&[a, b, first, (2, 11, 14, read(&[old]))]), "at the same time");
        assert!(!fits(&[a, b, first, (2, 13, 14, read(&[old]))]));
        assert!(fits(&[a, b, (1, 11, 12, read(&[old])), (1, 13, 14, read(&[new]))]));
        assert!(!fits(&[a, b, (1, 41, 42, read(&[old]))]), "the reload has returned");
    }
    // A later value of a member shows the switch, too: a replacement, or the next generation.
    let replaced = Built { version: 2, ..value(30, 0, 0, &[]) };
    for later in [replaced, value(30, 0, 1, &[])] {
        let published = (1, 11, 12, Event::Published(later));
        assert!(!fits(&[a, b, published, (2, 13, 14, read(&[11]))]));
    }
    // A later switch of one of them shows it, too, but not the other way round.
    let below = (0, 6, 7, Event::Published(value(13, 3, 0, &[])));
    let of = |value, version| Event::Switched { value: Built { version, ..value }, switch: 8 };
    let c = (1, 10, 40, of(value(31, 3, 0, &[]), 1));
    let d = (1, 10, 40, of(value(32, 1, 0, &[(0, 0)]), 2));
    let both = |first, then| {
        fits(&[below, a, b, c, d, (2, 11, 12, read(&[first])), (1, 13, 14, read(&[then]))])
    };
    assert!(!both(31, 10));
    assert!(both(20, 13));
}

#[test]
fn values_of_one_instant_on_both_sides_of_a_switch_are_refused_as_r3() {
    let [a, b] = switched(10, 40);
    for marks in [[20, 11], [10, 21]] {
        assert!(!fits(&[a, b, (1, 5, 60, read(&marks))]));
    }
    for marks in [&[10, 11, 12], &[20, 21, 12]] {
        assert!(fits(&[a, b, (1, 11, 39, read(marks))]));
    }
    // A value that was built for a switch that was not committed.
    assert!(!fits(&[(1, 11, 39, read(&[20]))]));
}

#[test]
fn a_service_that_is_not_ready_in_a_generation_of_its_own_is_refused_as_r2() {
    let not_ready = |generation| Event::NotReady { service: 1, generation };
    let [a, b] = switched(10, 40);
    assert!(!fits(&[a, b, (1, 11, 12, not_ready(0))]));
    assert!(fits(&[a, b, (1, 2, 3, not_ready(0))]), "it is being published");
    assert!(fits(&[a, b, (1, 41, 42, not_ready(1))]), "it has failed");
    assert!(!fits_exactly(&[a, b, (1, 41, 42, not_ready(1))]), "nothing has failed it");
}

/// Value 13 of service 3, which is built from value 11, which is switched.
fn above(from: impl Fn(&mut Built, &Built)) -> Line<Event> {
    let mut above = value(13, 3, 0, &[]);
    from(&mut above, &value(11, 1, 0, &[(0, 0)]));
    (0, 6, 7, Event::Published(above))
}

#[test]
fn a_read_of_what_was_built_from_an_old_value_is_refused_as_i2() {
    let [a, b] = switched(10, 40);
    let above = above(Built::rebuild_with);
    // A new value of another member shows the switch, too.
    for new in [20, 21] {
        let first = (1, 11, 12, read(&[new]));
        assert!(!fits(&[above, a, b, first, (2, 13, 14, read(&[13]))]));
        assert!(fits(&[above, a, b, first, (2, 11, 14, read(&[13]))]), "at the same time");
    }
    // An attempt that has received the old value is not published.
    let late = (0, 13, 14, above.3);
    assert!(!fits(&[a, b, (1, 11, 12, read(&[20])), late]));
    assert!(fits(&[a, b, (1, 11, 12, read(&[11])), late]));
}

#[test]
fn a_service_with_a_gap_is_down_before_a_new_value_is_read() {
    let [a, b] = switched(10, 40);
    let above = above(Built::rebuild_with);
    let gap = (0, 10, 40, Event::Restarted { service: 3, generation: 1, switch: 7 });
    assert!(!fits(&[above, a, b, gap, (1, 11, 12, read(&[20])), (2, 13, 14, read(&[13]))]));
    assert!(fits(&[above, a, b, gap, (1, 11, 12, read(&[13])), (2, 13, 14, read(&[20]))]));
    assert!(!fits(&[above, a, b, gap, (1, 5, 60, read(&[20, 13]))]), "at one instant");
    // It may begin again before the commit, from none of the members.
    let again = (0, 12, 13, Event::Published(value(14, 3, 1, &[])));
    assert!(fits(&[above, a, b, gap, again, (1, 14, 15, read(&[10, 14]))]));
    assert!(fits(&[above, a, b, gap, again, (1, 14, 15, read(&[14])), (1, 16, 17, read(&[10]))]));
}

#[test]
fn an_adopter_that_stays_and_takes_what_is_newer_is_accepted() {
    let [a, b] = switched(10, 40);
    let above = above(Built::adopt_after);
    let adopts = |new| Event::Adopted { by: 13, new };
    let both = [(1, 41, 42, read(&[20])), (2, 43, 44, read(&[13, 21]))];
    assert!(fits(&[above, a, b, both[0], both[1], (3, 45, 46, adopts(21))]));
    // It has depended on what the old value has depended on, until the switch.
    assert!(fits(&[above, a, b, both[0], (1, 45, 46, met(0, 1)), (1, 47, 48, read(&[13]))]));
    assert!(!fits(&[above, a, b, (1, 45, 46, met(1, 1)), (1, 47, 48, read(&[13]))]));
}

#[test]
fn an_adopter_that_takes_what_is_older_or_has_ended_is_refused() {
    let [a, b] = switched(10, 20);
    let above = above(Built::adopt_after);
    let newer = Built { version: 2, ..value(22, 1, 0, &[(0, 0)]) };
    let newer = (0, 10, 40, Event::Switched { value: newer, switch: 8 });
    let adopts = |at, new| (3, at, at + 1, Event::Adopted { by: 13, new });
    let fits = |lines: &[Line<Event>]| fits(&[&[above, a, b, newer], lines].concat());
    assert!(fits(&[adopts(21, 21), adopts(23, 22), adopts(25, 22)]));
    // In the order of the calls, which overlap with the switches.
    let at_once = |new| (3, 15, 20, Event::Adopted { by: 13, new });
    assert!(fits(&[at_once(21), at_once(22)]));
    assert!(!fits(&[at_once(22), at_once(21)]));
    assert!(!fits(&[adopts(41, 21)]), "it was switched away");
    assert!(!fits(&[(1, 18, 19, met(3, 1)), adopts(21, 21)]), "the adopter had failed");
    // It would never be asked to adopt.
    let mut unasked = value(14, 4, 0, &[]);
    unasked.adopt_after(&value(11, 1, 0, &[(0, 0)]));
    let late = |at| (0, at, at + 1, Event::Published(unasked));
    assert!(fits(&[late(15)]));
    assert!(!fits(&[late(21)]));
}
