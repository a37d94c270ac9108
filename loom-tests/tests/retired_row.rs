//! A row of the topology that is replaced, and retired, while `fail` reads it.
//!
//! The other models run a stand-in for crossbeam-epoch, in which nothing is ever freed. This one runs
//! `src/sync/snapshot.rs` as it is, on crossbeam-epoch as it is, with its default collector.
//!
//! ```text
//! reader:                pin | load ...................... read the row | unpin
//! writer:   pin | publish the next | unpin, and turn the epoch until the first is freed
//! ```
//!
//! Properties:
//!
//! - a row that was read under a pin is whole, and stays so while the pin is held;
//! - a row is dropped whole, whoever wrote it and whoever drops it;
//! - without a pin in the way, what was replaced is freed after two turns.
#![cfg(crossbeam_loom)]

#[path = "../../src/sync/snapshot.rs"]
mod snapshot;

/// What `snapshot.rs` takes from its parent.
mod sync {
    pub(crate) fn schedule_point() {}
}

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use loom::{sync::atomic, thread::spawn};
use mainstay_loom_tests::model;
use snapshot::{Snapshot, pin};

const UNWRITTEN: u32 = 0;
const WHOLE: u32 = 1;
const FREED: u32 = 2;

/// What became of each row: outside the rows, so that it can be asked of one that is gone.
///
/// Relaxed, so that it orders nothing by itself: whoever sees a row as `UNWRITTEN` was not ordered after its
/// writer, and whoever sees it as `FREED` not before its end.
type Rows = Arc<[atomic::AtomicU32; 3]>;

struct Row {
    number: usize,
    rows: Rows,
}

impl Row {
    fn write(number: usize, rows: &Rows) -> Self {
        rows[number].store(WHOLE, Relaxed);
        Self { number, rows: Arc::clone(rows) }
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        let row = &self.rows[self.number];
        assert_eq!(row.load(Relaxed), WHOLE, "dropped before it was whole, or twice");
        row.store(FREED, Relaxed);
    }
}

fn topology() -> (Rows, Arc<Snapshot<Row>>) {
    let rows = Rows::new(std::array::from_fn(|_| atomic::AtomicU32::new(UNWRITTEN)));
    let snapshot = Arc::new(Snapshot::empty());
    assert!(snapshot.publish(Row::write(0, &rows), &pin()).is_none(), "there was nothing");
    (rows, snapshot)
}

/// Publishes a row that is written under the pin: what is written before that is ordered by the pin's fence.
fn publish(number: usize, rows: &Rows, snapshot: &Snapshot<Row>) {
    let pin = pin();
    snapshot.publish(Row::write(number, rows), &pin);
}

/// What is retired is freed two turns later, if no pin holds it.
fn turn_the_epoch() {
    for _ in 0..2 {
        crossbeam_epoch::pin().flush();
    }
}

/// Bound: 1.
#[test]
fn against_a_reader() {
    static FREED_MEANWHILE: AtomicUsize = AtomicUsize::new(0);
    model("retired, against a reader", Some(1), || {
        let (rows, snapshot) = topology();
        let reader = spawn({
            let (rows, snapshot) = (Arc::clone(&rows), Arc::clone(&snapshot));
            move || {
                let pin = pin();
                let number = snapshot.load(&pin).expect("it is never empty again").number;
                let row = rows.get(number).expect("the row's memory is somebody else's");
                assert_eq!(row.load(Relaxed), WHOLE, "not whole under a pin");
            }
        });
        let writer = spawn({
            let (rows, snapshot) = (Arc::clone(&rows), Arc::clone(&snapshot));
            move || {
                publish(1, &rows, &snapshot);
                turn_the_epoch();
                if rows[0].load(Relaxed) == FREED {
                    FREED_MEANWHILE.fetch_add(1, Relaxed);
                }
            }
        });
        reader.join().unwrap();
        writer.join().unwrap();
    });
    // Or there was nothing to be seen.
    assert_ne!(FREED_MEANWHILE.load(Relaxed), 0, "nothing was freed");
}

/// Two writers replace each other's rows, so that each may drop what the other wrote. Bound: 1.
#[test]
fn written_by_another() {
    static FREED_MEANWHILE: AtomicUsize = AtomicUsize::new(0);
    model("retired, written by another", Some(1), || {
        let (rows, snapshot) = topology();
        let writers = [1, 2].map(|number| {
            let (rows, snapshot) = (Arc::clone(&rows), Arc::clone(&snapshot));
            spawn(move || {
                publish(number, &rows, &snapshot);
                turn_the_epoch();
                if rows[3 - number].load(Relaxed) == FREED {
                    FREED_MEANWHILE.fetch_add(1, Relaxed);
                }
            })
        });
        for writer in writers {
            writer.join().unwrap();
        }
    });
    assert_ne!(FREED_MEANWHILE.load(Relaxed), 0, "nothing was freed");
}
