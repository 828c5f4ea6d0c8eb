//! What one kind's lists and watches say, as events. Plain state: no I/O, no clock.
//!
//! A list is told page by page, and only when it has come to its end is an object gone that it did not name. What
//! a watch says holds at once. An object that does not read is there nevertheless: what it said before stays.

use super::{
    super::{Event, Object, ObjectKind, ObjectRef, Problem},
    guarded::Guarded,
};
use std::collections::{BTreeMap, HashMap};

/// How many objects that do not read are named. Where there are more, it is a version of the kind that this scaler
/// does not know, and each of them says the same.
const MAX_PROBLEMS: usize = 100;

/// A kind that can be followed.
pub(super) trait Followed: Sized {
    /// Which kind.
    const KIND: ObjectKind;

    /// As a source tells it.
    fn told(self) -> Object;
}

/// What is known of one kind's objects: their names and versions, and what is wrong with them.
#[derive(Debug)]
pub(super) struct Feed {
    kind: ObjectKind,
    /// By namespace, then by name.
    known: HashMap<String, HashMap<String, Known>>,
    len: usize,
    /// The number of the last list that was begun.
    list: u64,
    problems: BTreeMap<ObjectRef, Problem>,
    problems_changed: bool,
}

#[derive(Debug)]
struct Known {
    version: Box<str>,
    /// The last list that named it.
    list: u64,
    /// Whether any version of it was told.
    is_told: bool,
}

// === impl Feed ===

impl Feed {
    /// Nothing is known.
    pub(super) fn new(kind: ObjectKind) -> Self {
        Self {
            kind,
            known: HashMap::new(),
            len: 0,
            list: 0,
            problems: BTreeMap::new(),
            problems_changed: false,
        }
    }

    /// How many objects there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// A list begins; one that has not come to its end is forgotten.
    pub(super) fn begin_list(&mut self) {
        self.list += 1;
    }

    /// An object of the list that has begun. What is known in that version already is not told again.
    pub(super) fn listed<K: Followed>(&mut self, object: Guarded<K>) -> Option<Event> {
        let is_same = self
            .known
            .get_mut(object.namespace())
            .and_then(|names| names.get_mut(object.name()))
            .filter(|known| *known.version == *object.version() && !object.version().is_empty())
            .map(|known| known.list = self.list)
            .is_some();
        if is_same { None } else { self.applied(object) }
    }

    /// The list has come to its end: what it did not name is gone.
    pub(super) fn end_list(&mut self) -> Vec<Event> {
        let mut gone = Vec::new();
        let list = self.list;
        for (namespace, names) in &mut self.known {
            names.retain(|name, known| {
                let is_there = known.list == list;
                if !is_there {
                    gone.push(ObjectRef {
                        kind: self.kind,
                        namespace: namespace.clone(),
                        name: name.clone(),
                    });
                }
                is_there
            });
        }
        self.known.retain(|_, names| !names.is_empty());
        self.len -= gone.len();
        for reference in &gone {
            self.problems_changed |= self.problems.remove(reference).is_some();
        }
        gone.into_iter().map(Event::Delete).collect()
    }

    /// An object has come or changed.
    pub(super) fn applied<K: Followed>(&mut self, object: Guarded<K>) -> Option<Event> {
        let (namespace, name) = (object.namespace().to_owned(), object.name().to_owned());
        if name.is_empty() {
            // Nothing that an API server has.
            return None;
        }
        let reference = ObjectRef { kind: self.kind, namespace: namespace.clone(), name: name.clone() };
        let list = self.list;
        let len = &mut self.len;
        let known = self.known.entry(namespace).or_default().entry(name).or_insert_with(|| {
            *len += 1;
            Known { version: Box::default(), list, is_told: false }
        });
        known.version = object.version().into();
        known.list = list;
        match object.into_object() {
            Ok(object) => {
                known.is_told = true;
                self.problems_changed |= self.problems.remove(&reference).is_some();
                Some(Event::Apply(object.told()))
            }
            Err(unreadable) => {
                let before = if known.is_told {
                    "what this object said before stays in force"
                } else {
                    "until it reads, this object is not used"
                };
                let message = format!("{}; {before}", unreadable.error);
                let problem = Problem { source: reference.to_string(), field: unreadable.field, message };
                if self.problems.get(&reference) != Some(&problem) {
                    self.problems.insert(reference, problem);
                    self.problems_changed = true;
                }
                None
            }
        }
    }

    /// An object is gone.
    pub(super) fn deleted<K>(&mut self, object: &Guarded<K>) -> Option<Event> {
        let (namespace, name) = (object.namespace(), object.name());
        let names = self.known.get_mut(namespace)?;
        names.remove(name)?;
        self.len -= 1;
        if names.is_empty() {
            self.known.remove(namespace);
        }
        let reference = ObjectRef { kind: self.kind, namespace: namespace.to_owned(), name: name.to_owned() };
        self.problems_changed |= self.problems.remove(&reference).is_some();
        Some(Event::Delete(reference))
    }

    /// Whether [`Self::problems`] are others than at the last call of this.
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.problems_changed)
    }

    /// What is wrong with objects: with the first [`MAX_PROBLEMS`], and how many more there are.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = self.problems.values().take(MAX_PROBLEMS).cloned().collect();
        if let Some(more) = self.problems.len().checked_sub(MAX_PROBLEMS).filter(|more| *more > 0) {
            let name = self.kind.name();
            problems.push(Problem {
                source: format!("watch of {name}"),
                field: String::new(),
                message: format!("{more} more {name}s do not read"),
            });
        }
        problems
    }
}
