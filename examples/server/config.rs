//! `config`: the content of the configuration file. Its body watches the file.

use std::{
    mem,
    path::{Path, PathBuf},
    sync::Arc,
};

use mainstay::supervise::{Build, Live, Planned};
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::{BoxError, config_file::ConfigFile};

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

    async fn read(file: &mut ConfigFile) -> Result<Self, BoxError> {
        let directory = file.directory().to_owned();
        Ok(Self::parse(file.read().await?, &directory)?)
    }
}

/// The file, which the builder reads and the body watches. They never run at the same time.
#[derive(Clone)]
pub(crate) struct Source(Arc<Mutex<State>>);

struct State {
    file: ConfigFile,
    /// The last build could not use it.
    is_broken: bool,
}

impl Source {
    pub(crate) fn new(file: ConfigFile) -> Self {
        Self(Arc::new(Mutex::new(State { file, is_broken: false })))
    }

    /// Reads the configuration. If the last one was broken, waits first until the file has changed.
    /// A failure of the service ends this build, and the next one does not wait.
    pub(crate) async fn build(&self, _: Build<Config>) -> Result<Config, BoxError> {
        let State { file, is_broken } = &mut *self.0.lock().await;
        if mem::take(is_broken) {
            file.changed().await;
        }
        let config = Config::read(file).await;
        *is_broken = config.is_err();
        config
    }

    /// Watches the file, and returns the reason for which the configuration has ended.
    pub(crate) async fn watch(&self, live: Live<Config>) -> Result<(), BoxError> {
        let Some(config) = live.instance().map(|config| Config::clone(&config)) else {
            return Ok(());
        };
        let State { file, .. } = &mut *self.0.lock().await;
        loop {
            tokio::select! {
                _ = live.stopping() => return Ok(()),
                () = file.changed() => {}
            }
            // A changed comment or order is no reason for a restart. A broken file is read again by
            // the next build, which reports what is wrong with it.
            if Config::read(file).await.is_ok_and(|new| new == config) {
                continue;
            }
            // When the body returns this, all that was built from the configuration is taken down.
            return Err(Planned::new("changed on disk").into());
        }
    }
}
