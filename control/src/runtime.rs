//! The runtimes of `config/runtimes.toml`: what a function's image is made of.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::config::{ConfigError, toml_error};

/// Where the runtimes are described, below the share directory.
const FILE: &str = "config/runtimes.toml";

/// Every runtime, by name. Not empty.
#[derive(Debug, Clone)]
pub struct Runtimes(BTreeMap<String, Runtime>);

/// What a function's image is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// As services name it, such as `node18`.
    pub name: String,
    /// The image that the runner layer is built on.
    pub base: String,
    /// Images that do as well, best first.
    pub fallbacks: Vec<String>,
    /// Directory with the runner layer's `Dockerfile` and files.
    pub runner: PathBuf,
    /// Text of the Dockerfile of a function's image. Its argument `RUNNER` is the runner layer.
    pub template: String,
    /// Names under which the source is put into `/app/function/`.
    pub code_files: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    runtimes: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    base: String,
    #[serde(default)]
    fallbacks: Vec<String>,
    runner: PathBuf,
    template: PathBuf,
    code_files: Vec<String>,
}

impl Runtimes {
    /// Reads and checks `<share_dir>/config/runtimes.toml` and the templates that it names.
    ///
    /// # Errors
    /// One line that names the file and the field.
    pub fn load(share_dir: &Path) -> Result<Self, ConfigError> {
        let path = share_dir.join(FILE);
        let text = fs::read_to_string(&path)
            .map_err(|e| ConfigError::new(format!("{}: {e}", path.display())))?;
        let file: File = toml::from_str(&text).map_err(|e| toml_error(&path, &text, &e))?;
        if file.runtimes.is_empty() {
            return Err(ConfigError::new(format!("{}: names no runtime", path.display())));
        }
        let mut runtimes = BTreeMap::new();
        for (name, entry) in file.runtimes {
            let runtime = entry.check(&name, share_dir).map_err(|(field, reason)| {
                let path = path.display();
                ConfigError::new(format!("{path}: runtimes.\"{name}\".{field}: {reason}"))
            })?;
            runtimes.insert(name, runtime);
        }
        Ok(Self(runtimes))
    }

    /// The runtime of this name.
    pub fn get(&self, name: &str) -> Option<&Runtime> {
        self.0.get(name)
    }

    /// All runtimes, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Runtime> {
        self.0.values()
    }
}

impl Entry {
    /// The runtime, or the field at fault and why.
    fn check(self, name: &str, share_dir: &Path) -> Result<Runtime, (&'static str, String)> {
        for (field, images) in
            [("base", std::slice::from_ref(&self.base)), ("fallbacks", self.fallbacks.as_slice())]
        {
            for image in images {
                if image.is_empty() || !image.chars().all(|c| c.is_ascii_graphic()) {
                    return Err((field, format!("\"{image}\" is not the name of an image")));
                }
            }
        }
        let runner = share_dir.join(&self.runner);
        if !runner.join("Dockerfile").is_file() {
            return Err(("runner", format!("{} holds no Dockerfile", runner.display())));
        }
        let template = share_dir.join(&self.template);
        let template = fs::read_to_string(&template)
            .map_err(|e| ("template", format!("{}: {e}", template.display())))?;
        if self.code_files.is_empty() {
            return Err(("code_files", "names no file".to_owned()));
        }
        for file in &self.code_files {
            let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
            if file.is_empty() || file.starts_with('.') || !file.chars().all(plain) {
                return Err(("code_files", format!("\"{file}\" is not a plain file name")));
            }
        }
        Ok(Runtime {
            name: name.to_owned(),
            base: self.base,
            fallbacks: self.fallbacks,
            runner,
            template,
            code_files: self.code_files,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A share directory with one runner and one template.
    fn share(runtimes: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("temporary directory");
        for path in ["config", "runners/node"] {
            fs::create_dir_all(dir.path().join(path)).expect("creates");
        }
        let write = |path, text| fs::write(dir.path().join(path), text).expect("writes");
        write("runners/node/Dockerfile", "FROM scratch\n");
        write("config/t.Dockerfile", "FROM x\n");
        write(FILE, runtimes);
        dir
    }

    const GOOD: &str = r#"
        [runtimes."node18"]
        base = "node:18-alpine"
        runner = "runners/node"
        template = "config/t.Dockerfile"
        code_files = ["index.js"]
    "#;

    #[test]
    fn the_file_in_the_repository_is_good() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let runtimes = Runtimes::load(&root).expect("is good");
        let names: Vec<_> = runtimes.iter().map(|runtime| runtime.name.as_str()).collect();
        assert_eq!(names, ["node18", "python3.9"]);
        let node = runtimes.get("node18").expect("is there");
        assert_eq!(node.code_files, ["index.js", "index.mjs"]);
        assert!(node.template.contains("FROM ${RUNNER}"));
    }

    #[test]
    fn paths_start_at_the_share_directory() {
        let dir = share(GOOD);
        let runtimes = Runtimes::load(dir.path()).expect("is good");
        let node = runtimes.get("node18").expect("is there");
        assert_eq!(node.runner, dir.path().join("runners/node"));
        assert_eq!(node.template, "FROM x\n");
        assert!(runtimes.get("cobol").is_none());
    }

    #[test]
    fn errors_name_file_and_field() {
        for (good, bad, field) in [
            ("base =", "bse =", "unknown field `bse`"),
            ("\"node:18-alpine\"", "\"\"", "runtimes.\"node18\".base"),
            ("runners/node", "runners/cobol", "runtimes.\"node18\".runner"),
            ("config/t.D", "config/u.D", "runtimes.\"node18\".template"),
            ("[\"index.js\"]", "[]", "runtimes.\"node18\".code_files"),
            ("index.js", "../index.js", "runtimes.\"node18\".code_files"),
            ("code_files", "# code_files", "missing field `code_files`"),
        ] {
            let text = GOOD.replace(good, bad);
            assert_ne!(text, GOOD, "{good}");
            let dir = share(&text);
            let line = Runtimes::load(dir.path()).expect_err(bad).to_string();
            assert!(line.contains(FILE) && line.contains(field), "{line}");
            assert_eq!(line.lines().count(), 1, "{line}");
        }
        let dir = share("[runtimes]");
        assert!(Runtimes::load(dir.path()).is_err());
    }
}
