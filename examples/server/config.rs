//! `config`: the content of the configuration file. Its body watches the file.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mainstay::supervise::{Build, Live, Planned, TokioClock};
use serde::Deserialize;

use crate::{BoxError, Services, config_file::ConfigFile};

/// An edit is reported within this time if it cannot be applied.
pub(crate) const RELOAD_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Identifies this configuration in every answer.
    pub(crate) name: String,
    /// The SQLite file, relative to the directory of the configuration file.
    pub(crate) database: PathBuf,
    pub(crate) title: String,
    pub(crate) greeting: String,
    /// The number of countries on the front page.
    #[serde(default = "default_limit")]
    pub(crate) limit: usize,
}

fn default_limit() -> usize {
    20
}

impl Config {
    fn parse(text: &str, directory: &Path) -> Result<Self, toml::de::Error> {
        let mut config: Self = toml::from_str(text)?;
        config.database = directory.join(config.database);
        Ok(config)
    }

    async fn read(file: &ConfigFile) -> Result<Self, BoxError> {
        Ok(Self::parse(&file.read().await?, file.directory())?)
    }
}

/// What an edit of the file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnEdit {
    /// All that is built from the configuration is built anew beside the old services, and switched
    /// at one instant. If any of it cannot be built, everything stays as it is.
    Reload,
    /// All that is built from the configuration is taken down, and built anew.
    Restart,
}

/// The file, which the builder reads and the body watches.
#[derive(Clone)]
pub(crate) struct Source {
    file: Arc<ConfigFile>,
    on_edit: OnEdit,
    /// The last build could not use the file.
    is_broken: Arc<AtomicBool>,
}

impl Source {
    pub(crate) fn new(file: ConfigFile, on_edit: OnEdit) -> Self {
        Self { file: Arc::new(file), on_edit, is_broken: Arc::default() }
    }

    /// Reads the configuration. If the last one was broken, waits first until the file has changed.
    /// A failure of the service ends this build, and the next one does not wait.
    pub(crate) async fn build(&self, build: Build<Config>) -> Result<Config, BoxError> {
        if build.is_reload() {
            // An error refuses the reload, and the present configuration stays.
            return Config::read(&self.file).await;
        }
        if self.is_broken.swap(false, Ordering::Relaxed) {
            self.file.changed().await;
        }
        let config = Config::read(&self.file).await;
        self.is_broken.store(config.is_err(), Ordering::Relaxed);
        config
    }

    /// Watches the file while a configuration is up.
    pub(crate) async fn watch(
        &self,
        live: Live<Config>,
        services: &Services,
    ) -> Result<(), BoxError> {
        let config = live.instance().map(|config| Config::clone(&config));
        let Some(config) = config else { return Ok(()) };
        let mut is_stale = false;
        loop {
            tokio::select! {
                _ = live.stopping() => return Ok(()),
                () = self.file.changed() => {}
            }
            // A changed comment or order is no reason for a reload, unless an edit before was
            // refused.
            let new = Config::read(&self.file).await;
            if !is_stale && new.is_ok_and(|new| new == config) {
                continue;
            }
            if self.on_edit == OnEdit::Restart {
                // When the body returns this, all that was built from the configuration is taken
                // down.
                return Err(Planned::new("changed on disk").into());
            }
            let reload = services.registry.reload(services.config);
            let reload = reload.timeout(RELOAD_TIMEOUT, &TokioClock);
            tokio::select! {
                // The file has changed again: the reload is dropped, and so abandoned.
                () = self.file.changed() => {}
                // The observer prints why it was refused, and `/services` shows it. If it was not,
                // this body ends, and that of the new configuration has begun.
                reloaded = reload => is_stale = reloaded.is_err(),
            }
        }
    }
}
