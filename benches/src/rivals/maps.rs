//! Maps from a name to a value of any type, as a server has them without mainstay.

use std::{any::Any, collections::HashMap, sync::Arc};

use dashmap::DashMap;
use left_right::{Absorb, ReadHandle, ReadHandleFactory, WriteHandle};

use super::{
    container::{Container, SPARE, answer},
    go_service::GoService,
};

pub type Value = Arc<dyn Any + Send + Sync>;

/// Returns the number that was stored as this value.
#[inline]
pub fn number(value: &Value) -> u64 {
    *value.downcast_ref().unwrap()
}

/// A map that threads share.
pub trait Map: Sync {
    fn insert(&self, name: &str, value: Value);

    fn remove(&self, name: &str);
}

/// A map that contains all services, with names that were created before.
pub struct Named<M> {
    pub map: M,
    names: Vec<String>,
}

impl<M: Map> Named<M> {
    pub fn new(map: M) -> Self {
        let names = (0..=SPARE).map(|service| format!("service {service}")).collect();
        let named = Self { map, names };
        (0..=SPARE).for_each(|service| named.publish(service));
        named
    }

    #[inline]
    pub fn name(&self, service: usize) -> &str {
        &self.names[service]
    }
}

impl<M: Map> Container for Named<M> {
    fn publish(&self, service: usize) {
        self.map.insert(self.name(service), Arc::new(answer(service)));
    }

    fn fail(&self, service: usize) {
        self.map.remove(self.name(service));
    }
}

impl Map for std::sync::RwLock<HashMap<String, Value>> {
    fn insert(&self, name: &str, value: Value) {
        self.write().unwrap().insert(name.into(), value);
    }

    fn remove(&self, name: &str) {
        self.write().unwrap().remove(name);
    }
}

impl Map for parking_lot::RwLock<HashMap<String, Value>> {
    fn insert(&self, name: &str, value: Value) {
        self.write().insert(name.into(), value);
    }

    fn remove(&self, name: &str) {
        self.write().remove(name);
    }
}

impl Map for DashMap<String, Value> {
    fn insert(&self, name: &str, value: Value) {
        self.insert(name.into(), value);
    }

    fn remove(&self, name: &str) {
        self.remove(name);
    }
}

impl Map for papaya::HashMap<String, Value> {
    fn insert(&self, name: &str, value: Value) {
        self.pin().insert(name.into(), value);
    }

    fn remove(&self, name: &str) {
        self.pin().remove(name);
    }
}

impl Map for GoService {
    fn insert(&self, name: &str, value: Value) {
        self.provide(name);
        self.ready(name, value);
    }

    fn remove(&self, name: &str) {
        self.fail(name);
    }
}

/// Two tables, one of them for the readers. A write is applied to one table after the other.
pub struct LeftRight {
    writer: parking_lot::Mutex<WriteHandle<Table, Change>>,
    readers: ReadHandleFactory<Table>,
}

#[derive(Clone, Default)]
pub struct Table(HashMap<String, Value>);

/// A name, and its new value.
pub struct Change(String, Option<Value>);

impl LeftRight {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let (writer, reader) = left_right::new();
        Self { writer: parking_lot::Mutex::new(writer), readers: reader.factory() }
    }

    /// Returns the reader of one thread.
    pub fn reader(&self) -> ReadHandle<Table> {
        self.readers.handle()
    }

    fn change(&self, change: Change) {
        let mut writer = self.writer.lock();
        writer.append(change);
        writer.publish();
    }
}

impl Table {
    #[inline]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }
}

impl Absorb<Change> for Table {
    fn absorb_first(&mut self, Change(name, value): &mut Change, _: &Self) {
        match value {
            Some(value) => self.0.insert(name.clone(), Arc::clone(value)),
            None => self.0.remove(name),
        };
    }

    fn absorb_second(&mut self, Change(name, value): Change, _: &Self) {
        match value {
            Some(value) => self.0.insert(name, value),
            None => self.0.remove(&name),
        };
    }

    fn sync_with(&mut self, first: &Self) {
        self.clone_from(first);
    }
}

impl Map for LeftRight {
    fn insert(&self, name: &str, value: Value) {
        self.change(Change(name.into(), Some(value)));
    }

    fn remove(&self, name: &str) {
        self.change(Change(name.into(), None));
    }
}
