//! What the files say, and what that means for each object.

use super::super::{Batch, Event, Object, ObjectRef, Problem, yaml};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
    ffi::OsStr,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// How deep folders may lie in each other. Bounds what a symbolic link to a parent does.
const MAX_DEPTH: usize = 16;

/// Which files may have changed.
#[derive(Debug, PartialEq, Eq)]
pub enum Scope {
    /// Any.
    All,
    /// These, and no others.
    Paths(BTreeSet<PathBuf>),
}

/// The folder as it was last read.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    namespace: Option<String>,
    files: BTreeMap<PathBuf, File>,
    /// Which files have an object, in their order: the first one's is used.
    holders: HashMap<ObjectRef, BTreeSet<PathBuf>>,
    /// Objects that more than one file has.
    contested: BTreeSet<ObjectRef>,
    /// The folders that could not be listed.
    unlisted: BTreeMap<PathBuf, Problem>,
    told: Option<Vec<Problem>>,
}

#[derive(Debug, Default)]
struct File {
    stamp: Option<Stamp>,
    objects: BTreeMap<ObjectRef, Object>,
    problems: Vec<Problem>,
}

/// What tells a file from what it was before, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    changed: (i64, i64),
}

// === impl Scope ===

impl Default for Scope {
    fn default() -> Self {
        Self::Paths(BTreeSet::new())
    }
}

impl Scope {
    /// One file more; past `max` of them it is all.
    pub(super) fn add(&mut self, path: PathBuf, max: usize) {
        if let Self::Paths(paths) = self {
            paths.insert(path);
            if paths.len() > max {
                *self = Self::All;
            }
        }
    }
}

// === impl Folder ===

impl Folder {
    pub(super) fn new(root: PathBuf, namespace: Option<String>) -> Self {
        Self {
            root,
            namespace,
            files: BTreeMap::new(),
            holders: HashMap::new(),
            contested: BTreeSet::new(),
            unlisted: BTreeMap::new(),
            told: None,
        }
    }

    /// Reads what may have changed, and gives what did.
    pub(super) fn read(&mut self, scope: &Scope) -> Batch {
        let mut events = Vec::new();
        match scope {
            Scope::Paths(paths) if paths.iter().all(|path| self.is_plain_file(path)) => {
                for path in paths.iter().filter(|path| is_yaml(path)) {
                    self.read_file(path, true, &mut events);
                }
            }
            Scope::Paths(_) | Scope::All => self.read_all(scope, &mut events),
        }
        let problems = self.problems();
        let news = (self.told.as_ref() != Some(&problems)).then(|| problems.clone());
        self.told = Some(problems);
        Batch { events, problems: news, synced: !self.unlisted.contains_key(&self.root) }
    }

    /// Whether a change of `path` is that of one file and nothing more. Hidden names are not: behind `..data`
    /// Kubernetes exchanges all files of a mounted ConfigMap.
    fn is_plain_file(&self, path: &Path) -> bool {
        let Ok(below) = path.strip_prefix(&self.root) else { return false };
        let hidden = below.components().any(|part| is_hidden(part.as_os_str()));
        !hidden && if is_yaml(path) { !path.is_dir() } else { path.is_file() }
    }

    fn read_all(&mut self, scope: &Scope, events: &mut Vec<Event>) {
        let mut found = BTreeSet::new();
        let mut unlisted = BTreeMap::new();
        list(&self.root, MAX_DEPTH, &mut found, &mut unlisted);
        self.unlisted = unlisted;
        // What lies in a folder that cannot be listed is not gone: nobody knows.
        let gone: Vec<PathBuf> = self
            .files
            .keys()
            .filter(|path| !found.contains(*path) && !self.unlisted.keys().any(|dir| path.starts_with(dir)))
            .cloned()
            .collect();
        for path in gone {
            self.replace(&path, None, events);
        }
        for path in found {
            // A clock that ticks every few ms gives two versions of a file the same stamp: what is known to have
            // changed is read whatever its stamp says.
            let changed = matches!(scope, Scope::Paths(paths) if paths.contains(&path));
            self.read_file(&path, changed, events);
        }
    }

    fn read_file(&mut self, path: &Path, changed: bool, events: &mut Vec<Event>) {
        let old = self.files.get(path);
        let stamp = match fs::metadata(path) {
            Ok(meta) => Some(Stamp::of(&meta)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.replace(path, None, events);
            }
            Err(_) => None,
        };
        if !changed && stamp.is_some() && old.is_some_and(|old| old.stamp == stamp) {
            return;
        }
        let source = self.source(path);
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.replace(path, None, events);
            }
            Err(error) => {
                let message = format!("cannot be read: {error}; what the file said before stays");
                let file = self.files.entry(path.to_owned()).or_default();
                file.stamp = None;
                file.problems = vec![Problem { source, field: String::new(), message }];
                return;
            }
        };
        let content = yaml::read(&source, &text);
        let mut file = File { stamp, objects: BTreeMap::new(), problems: content.problems };
        for (reference, object) in content.objects {
            if self.namespace.as_ref().is_some_and(|only| *only != reference.namespace) {
                continue;
            }
            match file.objects.entry(reference) {
                Entry::Vacant(place) => {
                    place.insert(object);
                }
                Entry::Occupied(place) => {
                    let reference = place.key();
                    let message =
                        format!("{reference} is in this file twice; the first one is used, remove the other");
                    file.problems.push(Problem { source: source.clone(), field: String::new(), message });
                }
            }
        }
        if let Some(old) = self.files.get(path) {
            for (reference, object) in &old.objects {
                let stays = content.is_unclear || content.broken.contains(reference);
                if stays && !file.objects.contains_key(reference) {
                    file.objects.insert(reference.clone(), object.clone());
                }
            }
        }
        self.replace(path, Some(file), events);
    }

    /// Puts a file in another's place (`None`: it is gone), and says what that changes.
    fn replace(&mut self, path: &Path, file: Option<File>, events: &mut Vec<Event>) {
        let old = self.files.remove(path);
        let references = |file: &Option<File>| -> Vec<ObjectRef> {
            file.iter().flat_map(|file| file.objects.keys().cloned()).collect()
        };
        let mut touched: BTreeSet<ObjectRef> = references(&old).into_iter().collect();
        let new = references(&file);
        touched.extend(new.iter().cloned());

        // What was in force before, so that only what differs is told.
        let before: Vec<(ObjectRef, Option<Object>)> = touched
            .into_iter()
            .map(|reference| {
                let object = self.holder(&reference).and_then(|holder| {
                    let file = if *holder == path { old.as_ref() } else { self.files.get(holder) };
                    file?.objects.get(&reference).cloned()
                });
                (reference, object)
            })
            .collect();
        for (reference, _) in &before {
            let holders = self.holders.entry(reference.clone()).or_default();
            if file.as_ref().is_some_and(|file| file.objects.contains_key(reference)) {
                holders.insert(path.to_owned());
            } else {
                holders.remove(path);
            }
            match holders.len() {
                0 => {
                    self.holders.remove(reference);
                    self.contested.remove(reference);
                }
                1 => {
                    self.contested.remove(reference);
                }
                _ => {
                    self.contested.insert(reference.clone());
                }
            }
        }
        if let Some(file) = file {
            self.files.insert(path.to_owned(), file);
        }
        for (reference, before) in before {
            let after =
                self.holder(&reference).and_then(|holder| self.files.get(holder)?.objects.get(&reference));
            match after {
                Some(after) if before.as_ref() != Some(after) => events.push(Event::Apply(after.clone())),
                None if before.is_some() => events.push(Event::Delete(reference)),
                _ => {}
            }
        }
    }

    fn holder(&self, reference: &ObjectRef) -> Option<&PathBuf> {
        self.holders.get(reference)?.first()
    }

    /// Everything that is wrong now.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = self.unlisted.values().cloned().collect();
        problems.extend(self.files.values().flat_map(|file| file.problems.iter().cloned()));
        for reference in &self.contested {
            let mut holders = self.holders.get(reference).into_iter().flatten().map(|path| self.source(path));
            let (Some(first), others) = (holders.next(), holders.collect::<Vec<_>>()) else { continue };
            let message = format!("{reference} is also in {first}, which is used; remove one of them");
            problems.push(Problem { source: others.join(", "), field: String::new(), message });
        }
        problems
    }

    /// A file's name in problems: below the folder, as the user knows it.
    fn source(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }
}

// === impl Stamp ===

impl Stamp {
    fn of(meta: &fs::Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            len: meta.len(),
            changed: (meta.mtime(), meta.mtime_nsec()),
        }
    }
}

fn list(dir: &Path, depth: usize, found: &mut BTreeSet<PathBuf>, unlisted: &mut BTreeMap<PathBuf, Problem>) {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            let message = format!("cannot be listed: {error}; what its files said before stays");
            let problem = Problem { source: dir.display().to_string(), field: String::new(), message };
            unlisted.insert(dir.to_owned(), problem);
            return;
        }
    };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.file_name().is_none_or(is_hidden) {
            continue;
        }
        if path.is_dir() {
            if depth > 0 {
                list(&path, depth - 1, found, unlisted);
            }
        } else if is_yaml(&path) {
            found.insert(path);
        }
    }
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json")
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}
