//! The rules of the house, read off the sources: layers, doors, sizes, heads of files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::house::{Crate, circles};

/// Which layer each module is in. A module uses modules of lower layers only.
const LAYERS: &[(&str, u32)] = &[
    ("job", 0),
    ("guard", 0),
    ("store", 1),
    ("format", 1),
    ("http", 1),
    ("policy", 1),
    ("telemetry", 1),
    ("shutdown", 1),
    ("input", 2),
    ("dialect", 2),
    ("provider", 2),
    ("schema", 2),
    ("price", 2),
    ("tokens", 2),
    ("prompt", 3),
    ("config", 4),
    ("files", 4),
    ("plan", 4),
    ("work", 4),
    ("merge", 4),
    ("report", 4),
    ("pipeline", 5),
    ("launch", 6),
    ("cli", 7),
    ("fuzz", 8),
];

/// The outside crates that one module alone may name.
const DOORS: &[(&str, &[&str])] = &[
    ("sled", &["store"]),
    ("hyper_util", &["http"]),
    ("hyper_rustls", &["http"]),
    ("rustls", &["http"]),
    ("tokio_tungstenite", &["http"]),
    ("csv_core", &["format"]),
    ("jsonschema", &["schema"]),
    ("tiktoken_rs", &["tokens"]),
    ("base64", &["files", "input", "provider"]),
    ("toml", &["config"]),
    ("indicatif", &["telemetry", "cli"]),
    ("signal_hook", &["cli"]),
    ("clap", &["cli"]),
];

/// Circles of imports that are still to be opened: the folder they are in, and the most files they have. No new
/// circle is taken, and none of these may grow.
const CIRCLES_LEFT: &[(&str, usize)] = &[
    ("cli", 34),
    ("config", 2),
    ("dialect", 2),
    ("http", 3),
    ("job", 4),
    ("pipeline", 6),
    ("plan", 3),
    ("provider", 11),
    ("store", 10),
    ("work", 10),
];

/// A source file: the module it belongs to, and its text before its tests.
struct Source {
    path: PathBuf,
    module: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut dirs = vec![root.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            if path.extension() != Some("rs".as_ref()) {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            let text = text.split("#[cfg(test)]\npub(crate) mod tests").next().unwrap().to_owned();
            let inner = path.strip_prefix(&root).unwrap();
            let module = inner.iter().next().unwrap().to_string_lossy();
            let module = module.trim_end_matches(".rs").to_owned();
            found.push(Source { path, module, text });
        }
    }
    assert!(found.len() > 50, "the sources were found");
    found
}

/// The modules of ours that a text names.
fn used(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for part in text.split("crate::").skip(1) {
        let end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(0);
        if !part[..end].is_empty() {
            names.push(part[..end].to_owned());
        } else if let Some(list) = part.strip_prefix('{').and_then(|p| p.split(';').next()) {
            for name in list.split(',') {
                let name: String = name
                    .trim()
                    .chars()
                    .take_while(|c| c.is_ascii_lowercase() || *c == '_')
                    .collect();
                names.push(name);
            }
        }
    }
    names.retain(|name| LAYERS.iter().any(|(module, _)| module == name));
    names
}

#[test]
fn modules_use_lower_layers_only() {
    let layers: BTreeMap<_, _> = LAYERS.iter().copied().collect();
    for Source { path, module, text } in sources() {
        if module == "lib" || module == "main" {
            continue;
        }
        let layer = layers.get(module.as_str());
        let layer = layer.unwrap_or_else(|| panic!("{module} stands in no layer"));
        for name in used(&text) {
            let is_lower = name == module || layers[name.as_str()] < *layer;
            assert!(is_lower, "{} is in layer {layer} and uses {name}", path.display());
        }
    }
}

#[test]
fn outside_crates_are_named_at_their_doors_only() {
    for Source { path, module, text } in sources() {
        for (name, doors) in DOORS {
            let is_named =
                text.contains(&format!("{name}::")) || text.contains(&format!("use {name};"));
            let may = doors.contains(&module.as_str());
            assert!(may || !is_named, "{} names {name}", path.display());
        }
    }
}

#[test]
fn files_say_what_they_are_for() {
    for Source { path, text, .. } in sources() {
        assert!(text.starts_with("//! "), "{} does not say what it is for", path.display());
    }
}

#[test]
fn files_import_without_new_circles() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files: Vec<_> = sources().into_iter().map(|source| (source.path, source.text)).collect();
    let sources = Crate::parse(&root, &files);
    let imports = sources.imports();
    let arrows: usize = imports.values().map(|targets| targets.len()).sum();
    assert!(arrows > 500, "the imports were found: {arrows}");
    let mut text = String::new();
    for circle in circles(&imports) {
        let folder = |file: &&Path| file.strip_prefix(&root).unwrap().parent().unwrap().to_owned();
        let is_left = CIRCLES_LEFT.iter().any(|(name, most)| {
            circle.len() <= *most && circle.iter().all(|file| folder(file).starts_with(name))
        });
        if is_left {
            continue;
        }
        text += &format!("\ncircle of {} files\n", circle.len());
        for from in &circle {
            for to in imports[from].intersection(&circle) {
                let (from, to) = (from.strip_prefix(&root), to.strip_prefix(&root));
                text += &format!("  {} -> {}\n", from.unwrap().display(), to.unwrap().display());
            }
        }
    }
    assert!(text.is_empty(), "files import one another in new or larger circles:\n{text}");
}

#[test]
fn the_library_is_mute_and_has_no_environment() {
    for Source { path, module, text } in sources() {
        if module == "cli" || module == "main" {
            continue;
        }
        for word in ["println!", "eprintln!", "process::exit", "env::var", "std::env::args", "dbg!"]
        {
            assert!(!text.contains(word), "{} has {word}", path.display());
        }
    }
}

#[test]
fn the_layers_are_those_of_the_documentation() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let text = fs::read_to_string(path).unwrap();
    for (module, layer) in LAYERS {
        let row = text.lines().find(|line| {
            line.starts_with(&format!("| {layer} |")) && line.contains(&format!("`{module}`"))
        });
        assert!(row.is_some(), "docs/architecture.md has no row for {module} in layer {layer}");
    }
}

#[test]
fn every_kind_of_failure_and_every_exit_code_is_documented() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let formats = fs::read_to_string(docs.join("formats.md")).unwrap();
    for kind in rowmill::job::FailureKind::ALL {
        let row = format!("| `{}` | `{}` |", kind.name(), kind.class());
        assert!(formats.contains(&row), "docs/formats.md has no row {row}");
    }
    let codes = fs::read_to_string(docs.join("exit-codes.md")).unwrap();
    for code in [0, 1, 2, 3, 4, 65, 66, 69, 70, 73, 74, 75, 77, 78] {
        assert!(
            codes.contains(&format!("\n| {code} | ")),
            "docs/exit-codes.md has no row for {code}"
        );
    }
}
