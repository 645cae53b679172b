//! Which file imports which, read off the sources: enough of Rust's paths to follow `crate::`, `super::`, `self::`
//! and child modules through re-exports to the file that defines a name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A module's path from the crate's root: `["store", "journal"]`.
type ModulePath = Vec<String>;

/// One file of the crate.
struct Module {
    file: PathBuf,
    /// Its code without comments, strings and unit tests.
    code: String,
    children: BTreeSet<String>,
    /// A name that is re-exported, and the path it is taken from.
    reexports: BTreeMap<String, ModulePath>,
    /// Paths of modules all of whose names are re-exported.
    globs: Vec<ModulePath>,
}

/// The files of the crate by their module paths.
pub struct Crate {
    modules: BTreeMap<ModulePath, Module>,
}

impl Crate {
    /// Reads the crate whose files are given with their text without unit tests.
    pub fn parse(root: &Path, files: &[(PathBuf, String)]) -> Self {
        let mut modules = BTreeMap::new();
        for (file, text) in files {
            let path = module_path(file.strip_prefix(root).unwrap());
            let code = without_comments(text);
            let children = child_modules(&code);
            let mut module = Module {
                file: file.clone(),
                code,
                children,
                reexports: BTreeMap::new(),
                globs: Vec::new(),
            };
            module.read_reexports(&path);
            modules.insert(path, module);
        }
        Self { modules }
    }

    /// For each file, the files whose names it uses. A module and the modules inside it are one subject: what they
    /// use of each other does not count.
    pub fn imports(&self) -> BTreeMap<&Path, BTreeSet<&Path>> {
        let mut imports = BTreeMap::new();
        for (path, module) in &self.modules {
            let mut targets = BTreeSet::new();
            for used in module.used_paths(path) {
                if let Some(target) = self.defining_file(&used, 0)
                    && !is_within(target, &module.file)
                    && !is_within(&module.file, target)
                {
                    targets.insert(target);
                }
            }
            imports.insert(module.file.as_path(), targets);
        }
        imports
    }

    /// The file that defines what a path names, through re-exports. `None` if the path leads out of the crate.
    fn defining_file(&self, path: &[String], depth: usize) -> Option<&Path> {
        // The longest prefix that is a module.
        let at = (1..=path.len()).rev().find(|at| self.modules.contains_key(&path[..*at]))?;
        let module = &self.modules[&path[..at]];
        let Some(name) = path.get(at).filter(|_| depth < 8) else {
            return Some(&module.file);
        };
        if let Some(from) = module.reexports.get(name) {
            return self.defining_file(from, depth + 1);
        }
        let defines = |word: &str| module.code.contains(&format!("{word} {name}"));
        let is_own = ["fn", "struct", "enum", "trait", "type", "const", "static", "mod"]
            .into_iter()
            .any(defines);
        if !is_own {
            for glob in &module.globs {
                let inner = [glob.as_slice(), &path[at..]].concat();
                if let Some(file) = self.defining_file(&inner, depth + 1) {
                    return Some(file);
                }
            }
        }
        Some(&module.file)
    }
}

impl Module {
    fn read_reexports(&mut self, path: &ModulePath) {
        for statement in use_statements(&self.code) {
            let Some(tree) = statement.public_tree else { continue };
            let mut found = Vec::new();
            expand(tree, &mut Vec::new(), &mut found);
            for (segments, alias) in found {
                let Some(from) = absolute(&segments, path, &self.children) else { continue };
                match segments.last().map(String::as_str) {
                    Some("*") => self.globs.push(from[..from.len() - 1].to_vec()),
                    Some(last) => {
                        self.reexports.insert(alias.unwrap_or_else(|| last.to_owned()), from);
                    }
                    None => {}
                }
            }
        }
    }

    /// The absolute paths that the code uses, re-exports left out.
    fn used_paths(&self, path: &ModulePath) -> Vec<ModulePath> {
        let mut code = self.code.clone();
        for statement in use_statements(&self.code) {
            if statement.public_tree.is_some() {
                code.replace_range(statement.range.clone(), &" ".repeat(statement.range.len()));
            }
        }
        let mut starts: Vec<&str> = vec!["crate", "super", "self"];
        starts.extend(self.children.iter().map(String::as_str));
        let mut paths = Vec::new();
        for start in starts {
            for (at, _) in code.match_indices(&format!("{start}::")) {
                let is_word = code[..at]
                    .chars()
                    .next_back()
                    .is_none_or(|c| !c.is_ascii_alphanumeric() && c != '_' && c != ':' && c != '.');
                if !is_word {
                    continue;
                }
                let mut found = Vec::new();
                expand(&code[at..], &mut Vec::new(), &mut found);
                let whole = found.into_iter().map(|(segments, _)| segments);
                paths.extend(whole.filter_map(|s| absolute(&s, path, &self.children)));
            }
        }
        paths
    }
}

/// A `use` statement: where it stands, and its tree if other modules see what it names.
struct UseStatement<'a> {
    range: std::ops::Range<usize>,
    public_tree: Option<&'a str>,
}

fn use_statements(code: &str) -> Vec<UseStatement<'_>> {
    let mut found = Vec::new();
    let mut at = 0;
    for line in code.split_inclusive('\n') {
        let trimmed = line.trim_start();
        let head = at + line.len() - trimmed.len();
        let after = trimmed.strip_prefix("pub").map(|rest| match rest.strip_prefix('(') {
            Some(inner) => inner.split_once(')').map_or(inner, |(_, rest)| rest),
            None => rest,
        });
        let tree = after.unwrap_or(trimmed).trim_start().strip_prefix("use ");
        if let Some(tree) = tree {
            let begin = at + line.len() - tree.len();
            let end = code[begin..].find(';').map_or(code.len(), |end| begin + end);
            let public_tree = after.is_some().then(|| &code[begin..end]);
            found.push(UseStatement { range: head..end, public_tree });
        }
        at += line.len();
    }
    found
}

/// Expands a use tree or a plain path into its leaves, with the names they are given.
fn expand<'a>(
    tree: &'a str,
    prefix: &mut Vec<String>,
    found: &mut Vec<(Vec<String>, Option<String>)>,
) -> &'a str {
    let depth = prefix.len();
    let mut rest = tree.trim_start();
    loop {
        if let Some(mut inner) = rest.strip_prefix('{') {
            loop {
                inner = inner.trim_start();
                if let Some(after) = inner.strip_prefix('}') {
                    prefix.truncate(depth);
                    return after;
                }
                if inner.is_empty() {
                    prefix.truncate(depth);
                    return inner;
                }
                let before = inner.len();
                inner = expand(inner, prefix, found).trim_start();
                inner = inner.strip_prefix(',').unwrap_or(inner);
                if inner.len() == before {
                    prefix.truncate(depth);
                    return inner;
                }
            }
        }
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '*')
            .unwrap_or(rest.len());
        if end == 0 {
            break;
        }
        prefix.push(rest[..end].to_owned());
        rest = &rest[end..];
        match rest.strip_prefix("::") {
            Some(after) => rest = after,
            None => break,
        }
    }
    let mut alias = None;
    if let Some(after) = rest.strip_prefix(" as ") {
        let end =
            after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
        alias = Some(after[..end].to_owned());
        rest = &after[end..];
    }
    found.push((prefix.clone(), alias));
    prefix.truncate(depth);
    rest
}

/// A path from the crate's root. `None` if it leads out of the crate.
fn absolute(
    segments: &[String],
    module: &ModulePath,
    children: &BTreeSet<String>,
) -> Option<ModulePath> {
    let (first, rest) = segments.split_first()?;
    let mut path = match first.as_str() {
        "crate" => Vec::new(),
        "self" => module.clone(),
        "super" => module[..module.len().checked_sub(1)?].to_vec(),
        child if children.contains(child) => [module.as_slice(), &[child.to_owned()]].concat(),
        _ => return None,
    };
    for segment in rest {
        match segment.as_str() {
            "super" => {
                path.pop();
            }
            "self" => {}
            name => path.push(name.to_owned()),
        }
    }
    Some(path)
}

/// Whether a file is the other, or stands inside the folder whose `mod.rs` the other is.
fn is_within(file: &Path, other: &Path) -> bool {
    file == other
        || other.file_name().is_some_and(|name| name == "mod.rs")
            && file.starts_with(other.parent().unwrap())
}

fn module_path(file: &Path) -> ModulePath {
    let mut path: Vec<String> =
        file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if path.last().is_some_and(|last| last == "mod" || last == "lib" || last == "main") {
        path.pop();
    }
    path
}

fn child_modules(code: &str) -> BTreeSet<String> {
    let names = code.lines().filter_map(|line| {
        let rest = line.trim_start();
        let rest = rest.strip_prefix("pub(crate) ").or(rest.strip_prefix("pub ")).unwrap_or(rest);
        rest.strip_prefix("mod ")?.strip_suffix(';')
    });
    names.map(str::to_owned).collect()
}

/// The text with comments and string literals blanked.
fn without_comments(text: &str) -> String {
    text.lines()
        .map(|line| {
            let line = line.find("//").map_or(line, |at| &line[..at]);
            let mut is_inside = false;
            let kept: String = line
                .chars()
                .map(|c| {
                    if c == '"' {
                        is_inside = !is_inside;
                    }
                    if is_inside && c != '"' { ' ' } else { c }
                })
                .collect();
            kept + "\n"
        })
        .collect()
}

/// The circles of a graph: each a set of two files or more that reach one another.
pub fn circles<'a>(imports: &BTreeMap<&'a Path, BTreeSet<&'a Path>>) -> Vec<BTreeSet<&'a Path>> {
    let reachable = |start: &'a Path| {
        let mut seen = BTreeSet::new();
        let mut open = vec![start];
        while let Some(file) = open.pop() {
            for next in imports.get(file).into_iter().flatten() {
                if seen.insert(*next) {
                    open.push(next);
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&Path, BTreeSet<&Path>> =
        imports.keys().map(|file| (*file, reachable(file))).collect();
    let mut found: Vec<BTreeSet<&Path>> = Vec::new();
    for (file, others) in &reached {
        let is_known = found.iter().any(|circle| circle.contains(file));
        if !is_known && others.contains(file) {
            let back = others.iter().filter(|other| reached[*other].contains(file));
            found.push(back.copied().collect());
        }
    }
    found
}
