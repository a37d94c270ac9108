//! A file that reports when its content has changed.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{sync::Notify, task::spawn_blocking, time};

/// The delay after an event: editors write a file in several steps.
const DELAY: Duration = Duration::from_millis(20);
/// The file is read this often even without an event, because events get lost, and some file
/// systems send none.
const POLL: Duration = Duration::from_secs(1);

pub(crate) struct ConfigFile {
    path: PathBuf,
    /// The result of the last `read`.
    seen: Mutex<Content>,
    touched: Arc<Notify>,
    /// Notifies `touched` until it is dropped. Without a watcher only `POLL` detects changes.
    _watcher: Option<RecommendedWatcher>,
}

/// The text of the file, or the error as a text, so that both can be compared.
pub(crate) type Content = Result<String, String>;

/// Returns the path of the configuration file. The argument may be its directory.
pub(crate) fn locate(path: PathBuf) -> PathBuf {
    if path.is_dir() { path.join("server.toml") } else { path }
}

impl ConfigFile {
    pub(crate) fn watch(path: PathBuf) -> Self {
        let touched = Arc::new(Notify::new());
        let watcher = watcher(&path, Arc::clone(&touched))
            .inspect_err(|error| {
                eprintln!("no events for {}, reading it every {POLL:?}: {error}", path.display())
            })
            .ok();
        let seen = Mutex::new(Err("not read yet".into()));
        Self { path, seen, touched, _watcher: watcher }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    pub(crate) async fn read(&self) -> Content {
        let content = content(self.path.clone()).await;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = content.clone();
        content
    }

    /// Completes when the content of the file differs from the last `read` of any caller. It is
    /// cancel-safe.
    pub(crate) async fn changed(&self) {
        // First without an event: another wait may have received it.
        while !self.has_changed().await {
            if time::timeout(POLL, self.touched.notified()).await.is_ok() {
                time::sleep(DELAY).await;
            }
        }
    }

    async fn has_changed(&self) -> bool {
        let content = content(self.path.clone()).await;
        content != *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn content(path: PathBuf) -> Content {
    let shown = path.display().to_string();
    let read = match spawn_blocking(move || std::fs::read_to_string(path)).await {
        Ok(read) => read,
        Err(error) => Err(io::Error::from(error)),
    };
    read.map_err(|error| format!("cannot read {shown}: {error}"))
}

/// Watches the directory, not the file: most editors replace the file by a new one.
fn watcher(path: &Path, touched: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let directory = match path.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    };
    let name = path.file_name().map(ToOwned::to_owned);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let is_relevant = event.is_ok_and(|event| {
            // This process also reads the file, which is an access.
            let is_written = !matches!(event.kind, EventKind::Access(_));
            let is_named = event.paths.iter().any(|path| path.file_name() == name.as_deref());
            event.need_rescan() || (is_written && is_named)
        });
        if is_relevant {
            touched.notify_one();
        }
    })?;
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
