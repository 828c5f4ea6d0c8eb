use super::{super::Event, content::*};
use std::{fs, path::Path};

struct Bed {
    dir: tempfile::TempDir,
    folder: Folder,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().to_owned(), None);
        Self { dir, folder }
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// What a read of everything says.
    fn read(&mut self) -> Vec<String> {
        said(self.folder.read(&Scope::All).events)
    }

    /// What a read of just these files says.
    fn read_only(&mut self, files: &[&str]) -> Vec<String> {
        let paths = files.iter().map(|file| self.dir.path().join(file)).collect();
        said(self.folder.read(&Scope::Paths(paths)).events)
    }

    fn problems(&self) -> Vec<(String, String)> {
        let problems = self.folder.problems();
        problems.into_iter().map(|problem| (problem.source, problem.message)).collect()
    }
}

fn said(events: Vec<Event>) -> Vec<String> {
    let mut said: Vec<String> = events
        .into_iter()
        .map(|event| match event {
            Event::Apply(object) => format!("+{}", object.reference().unwrap().name),
            Event::Delete(reference) => format!("-{}", reference.name),
        })
        .collect();
    said.sort();
    said
}

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n---\n"
    )
}

#[test]
fn what_comes_changes_and_goes_is_told_and_nothing_else() {
    let mut bed = Bed::new();
    bed.write("one.yaml", &(service("a", 1) + &service("b", 1)));
    bed.write("below/two.yml", &service("c", 1));
    bed.write("notes.txt", "not ours");
    bed.write(".hidden.yaml", &service("h", 1));
    assert_eq!(bed.read(), ["+a", "+b", "+c"]);
    assert!(bed.read().is_empty());
    bed.write("one.yaml", &(service("a", 1) + &service("b", 22)));
    assert_eq!(bed.read(), ["+b"]);
    bed.write("one.yaml", &service("b", 22));
    assert_eq!(bed.read(), ["-a"]);
    fs::remove_dir_all(bed.dir.path().join("below")).unwrap();
    assert_eq!(bed.read(), ["-c"]);
    fs::remove_file(bed.dir.path().join("one.yaml")).unwrap();
    assert_eq!(bed.read_only(&["one.yaml"]), ["-b"]);
}

#[test]
fn a_file_that_is_named_as_changed_is_read_even_if_it_looks_the_same() {
    let mut bed = Bed::new();
    bed.write("a.yaml", &service("a", 1));
    assert_eq!(bed.read(), ["+a"]);
    let path = bed.dir.path().join("a.yaml");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    bed.write("a.yaml", &service("a", 2));
    fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    assert!(bed.read().is_empty(), "the same file, length and time");
    assert_eq!(bed.read_only(&["a.yaml"]), ["+a"]);
}

#[test]
fn a_broken_file_leaves_everything_as_it_was_and_is_named() {
    let mut bed = Bed::new();
    bed.write("a.yaml", &(service("a", 1) + &service("b", 1)));
    bed.write("c.yaml", &service("c", 1));
    bed.read();
    bed.write("a.yaml", "a: [1\nb: 2");
    bed.write("c.yaml", &service("c", 22));
    assert_eq!(bed.read(), ["+c"]);
    let problems = bed.problems();
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].0, "a.yaml");
    bed.write("a.yaml", &service("a", 33));
    assert_eq!(bed.read(), ["+a", "-b"], "mended, and b is really gone");
    assert!(bed.problems().is_empty());
}

#[test]
fn a_broken_document_leaves_its_object_as_it_was_and_the_others_go_on() {
    let mut bed = Bed::new();
    bed.write("a.yaml", &(service("a", 1) + &service("b", 1)));
    bed.read();
    let broken = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: many}]}\n---\n";
    bed.write("a.yaml", &(broken.to_owned() + &service("c", 1)));
    assert_eq!(bed.read(), ["+c", "-b"]);
    let problems = bed.problems();
    assert_eq!(problems[0].0, "a.yaml, document 1");
}

#[test]
fn what_cannot_be_named_keeps_the_whole_file() {
    let mut bed = Bed::new();
    bed.write("a.yaml", &service("a", 1));
    bed.read();
    bed.write("a.yaml", "apiVersion: v1\nkind: Service\nmetadata: {nmae: a}\n");
    assert!(bed.read().is_empty());
    let problems = bed.problems();
    assert!(problems.iter().any(|(_, message)| message.contains("give the Service a name")), "{problems:?}");
}

#[test]
fn of_two_files_with_an_object_the_first_is_used_and_the_second_takes_over() {
    let mut bed = Bed::new();
    bed.write("b.yaml", &service("a", 2));
    assert_eq!(bed.read(), ["+a"]);
    bed.write("a.yaml", &service("a", 1));
    assert_eq!(bed.read(), ["+a"]);
    assert!(bed.problems()[0].1.contains("a.yaml"), "{:?}", bed.problems());
    bed.write("b.yaml", &service("a", 33));
    assert!(bed.read().is_empty());
    fs::remove_file(bed.dir.path().join("a.yaml")).unwrap();
    assert_eq!(bed.read(), ["+a"]);
    assert!(bed.problems().is_empty());
}

#[test]
fn only_the_watched_namespace_counts() {
    let mut bed = Bed::new();
    bed.folder = Folder::new(bed.dir.path().to_owned(), Some("mine".to_owned()));
    bed.write("a.yaml", "{apiVersion: v1, kind: Service, metadata: {name: a, namespace: mine}}");
    bed.write("b.yaml", &service("b", 1));
    assert_eq!(bed.read(), ["+a"]);
}

#[test]
fn a_mounted_config_map_is_followed() {
    let mut bed = Bed::new();
    let link = |target: &str, name: &str| {
        let name = bed.dir.path().join(name);
        let _ = fs::remove_file(&name);
        std::os::unix::fs::symlink(target, name).unwrap();
    };
    bed.write("..v1/a.yaml", &service("a", 1));
    link("..v1", "..data");
    link("..data/a.yaml", "a.yaml");
    let folder = &mut bed.folder;
    assert_eq!(said(folder.read(&Scope::All).events), ["+a"]);
    fs::create_dir(bed.dir.path().join("..v2")).unwrap();
    fs::write(bed.dir.path().join("..v2/a.yaml"), service("a", 2)).unwrap();
    link("..v2", "..data");
    assert_eq!(bed.read_only(&["..data"]), ["+a"]);
}

#[test]
fn a_folder_that_is_gone_takes_nothing_with_it() {
    let mut bed = Bed::new();
    bed.write("a.yaml", &service("a", 1));
    bed.read();
    let away = bed.dir.path().with_extension("away");
    fs::rename(bed.dir.path(), &away).unwrap();
    let batch = bed.folder.read(&Scope::All);
    assert!(batch.events.is_empty());
    assert!(!batch.synced);
    assert_eq!(batch.problems.unwrap().len(), 1);
    fs::rename(&away, bed.dir.path()).unwrap();
    let batch = bed.folder.read(&Scope::All);
    assert!(batch.events.is_empty() && batch.synced);
    assert_eq!(batch.problems, Some(Vec::new()));
}

#[test]
fn many_changes_are_a_change_of_all() {
    let mut scope = Scope::default();
    for file in ["a", "b"] {
        scope.add(Path::new(file).to_owned(), 2);
    }
    assert!(matches!(&scope, Scope::Paths(paths) if paths.len() == 2));
    scope.add(Path::new("c").to_owned(), 2);
    assert_eq!(scope, Scope::All);
}

#[tokio::test]
async fn a_change_on_disk_arrives() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), service("a", 1)).unwrap();
    let (sender, mut batches) = tokio::sync::mpsc::channel(4);
    let following = tokio::spawn(super::follow(dir.path().to_owned(), None, sender));
    let first = batches.recv().await.unwrap();
    assert!(first.synced);
    assert_eq!(said(first.events), ["+a"]);
    fs::write(dir.path().join("b.yaml"), service("b", 1)).unwrap();
    let mut came = Vec::new();
    while came.is_empty() {
        came = said(batches.recv().await.unwrap().events);
    }
    assert_eq!(came, ["+b"]);
    drop(batches);
    following.await.unwrap();
}
