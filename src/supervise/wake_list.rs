//! Wakes one task on behalf of many waits, and records which of them were woken.
//!
//! Without it, a task that waits for many services would poll each of its waits whenever one of
//! them is woken.

use std::{
    mem,
    sync::Arc,
    task::{Context, Wake, Waker},
};

use crate::{
    numbers::ServiceIndex,
    sync::{Mutex, Shielded, lock, shielded},
};

/// The services whose waits were woken, and the task that polls these waits.
pub(super) struct WakeList(Arc<Mutex<Woken>>);

struct Woken {
    services: Vec<ServiceIndex>,
    /// `None` if the task was woken since it has last called `take`.
    task: Option<Shielded<Waker>>,
}

impl WakeList {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Woken { services: Vec::new(), task: None })))
    }

    /// Returns a waker that adds the service to the list, and wakes the task.
    pub(super) fn waker(&self, service: ServiceIndex) -> Waker {
        Arc::new(ServiceWaker { service, woken: Arc::clone(&self.0) }).into()
    }

    /// Returns the services that were added since the last call. The task of this context is woken
    /// when another one is added.
    pub(super) fn take(&self, context: &mut Context<'_>) -> Vec<ServiceIndex> {
        // The clone and the drop of a waker are user code, and run without the lock.
        let task = Some(Shielded::new(context.waker().clone()));
        let (services, _replaced) = {
            let mut woken = lock(&self.0);
            // In one section: a service that is added later finds the task.
            (mem::take(&mut woken.services), mem::replace(&mut woken.task, task))
        };
        services
    }
}

struct ServiceWaker {
    service: ServiceIndex,
    woken: Arc<Mutex<Woken>>,
}

impl Wake for ServiceWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let task = {
            let mut woken = lock(&self.woken);
            woken.services.push(self.service);
            woken.task.take()
        };
        if let Some(task) = task {
            shielded(|| task.into_inner().wake());
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct CountWakes(AtomicUsize);

    impl Wake for CountWakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_task_is_woken_once_and_finds_all_services() {
        let (list, task) = (WakeList::new(), Arc::new(CountWakes::default()));
        let wakes = || task.0.load(Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&task));
        let mut context = Context::from_waker(&waker);
        let [one, two] = [1, 2].map(|service| list.waker(ServiceIndex::new(service)));
        let mut take = || -> Vec<u32> {
            list.take(&mut context).iter().map(|service| service.get()).collect()
        };
        one.wake_by_ref();
        assert_eq!(wakes(), 0, "the task has not asked yet");
        assert_eq!(take(), [1]);
        two.wake_by_ref();
        one.wake();
        assert_eq!(wakes(), 1);
        assert_eq!(take(), [2, 1]);
        assert_eq!(take(), []);
        two.wake();
        assert_eq!(wakes(), 2);
    }
}
