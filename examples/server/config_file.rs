//! A file that tells when what it says has changed.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{sync::Notify, task::spawn_blocking, time};

/// Editors write a file in several steps; this lets them finish.
const SETTLE: Duration = Duration::from_millis(20);
/// Looks at the file this often without being told to: events get lost, and some file systems have none.
const POLL: Duration = Duration::from_secs(1);

pub(crate) struct ConfigFile {
    path: PathBuf,
    /// What the last `read` found.
    seen: Content,
    touched: Arc<Notify>,
    /// Sends to `touched` until it is dropped. Without one, `POLL` has to do.
    _watcher: Option<RecommendedWatcher>,
}

/// The text, or why there is none, in a form that can be compared.
type Content = Result<String, String>;

/// The configuration file meant by an argument that may be the directory it is in.
pub(crate) fn locate(path: PathBuf) -> PathBuf {
    if path.is_dir() { path.join("server.toml") } else { path }
}

impl ConfigFile {
    pub(crate) fn watch(path: PathBuf) -> Self {
        let touched = Arc::new(Notify::new());
        let watcher = watcher(&path, Arc::clone(&touched))
            .inspect_err(|error| {
                eprintln!("no events for {}, looking every {POLL:?}: {error}", path.display())
            })
            .ok();
        Self { path, seen: Err("not read yet".into()), touched, _watcher: watcher }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    pub(crate) async fn read(&mut self) -> Result<&str, String> {
        self.seen = content(self.path.clone()).await;
        self.seen.as_deref().map_err(Clone::clone)
    }

    /// Completes when the file says something else than `read` found. May be dropped and called again at
    /// any time.
    pub(crate) async fn changed(&self) {
        loop {
            if time::timeout(POLL, self.touched.notified()).await.is_ok() {
                time::sleep(SETTLE).await;
            }
            if content(self.path.clone()).await != self.seen {
                return;
            }
        }
    }
}

async fn content(path: PathBuf) -> Content {
    let shown = path.display().to_string();
    let read = match spawn_blocking(move || std::fs::read_to_string(path)).await {
        Ok(read) => read,
        Err(ended) => Err(io::Error::from(ended)),
    };
    read.map_err(|error| format!("cannot read {shown}: {error}"))
}

/// Watches the directory and not the file itself: most editors put a new file in place of the old one.
fn watcher(path: &Path, touched: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let directory = match path.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    };
    let name = path.file_name().map(ToOwned::to_owned);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let ours = event.is_ok_and(|event| {
            // Our own reading is an access too.
            let written = !matches!(event.kind, EventKind::Access(_));
            let named = event.paths.iter().any(|path| path.file_name() == name.as_deref());
            event.need_rescan() || (written && named)
        });
        if ours {
            touched.notify_one();
        }
    })?;
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
