//! `config`: what the configuration file says, for as long as it says so.

use std::path::{Path, PathBuf};

use mainstay::Provider;
use serde::Deserialize;

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
    /// How many countries the front page shows.
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

pub(crate) async fn provide(provider: Provider<Config>, mut file: ConfigFile) {
    let mut broken = false;
    while let Ok(attempt) = provider.begin().await {
        if std::mem::take(&mut broken) {
            // Nothing is worth a try before the file changes. Whoever fails this attempt wants one all
            // the same.
            tokio::select! {
                () = file.changed() => {}
                _ = attempt.overtaken() => continue,
            }
        }
        let config = match Config::read(&mut file).await {
            Ok(config) => config,
            Err(error) => {
                // The reason is what the 503s show from now on, unless something has overtaken the attempt:
                // then the next one has to say it.
                broken = attempt.fail(error).is_ok();
                continue;
            }
        };
        let Ok(running) = attempt.ready(config.clone()) else { continue };
        loop {
            tokio::select! {
                _ = running.failed() => break,
                () = file.changed() => {}
            }
            let reason: BoxError = match Config::read(&mut file).await {
                // Another comment, another order: nothing that anybody should restart for.
                Ok(new) if new == config => continue,
                Ok(_) => "changed on disk".into(),
                Err(error) => error,
            };
            // Everything made from the old configuration is down when this returns.
            running.fail(reason);
            break;
        }
    }
}
