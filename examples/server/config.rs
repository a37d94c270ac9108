//! `config`: the content of the configuration file. Its provider has no supervisor.

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

pub(crate) async fn provide(provider: Provider<Config>, mut file: ConfigFile) {
    let mut is_broken = false;
    while let Ok(attempt) = provider.begin().await {
        if std::mem::take(&mut is_broken) {
            // The file must change before another attempt makes sense. A failure of the service
            // asks for an attempt, too.
            tokio::select! {
                () = file.changed() => {}
                _ = attempt.invalidated() => continue,
            }
        }
        let config = match Config::read(&mut file).await {
            Ok(config) => config,
            Err(error) => {
                // The 503 responses show the reason. If the attempt was invalidated, the next
                // attempt fails with the reason.
                is_broken = attempt.fail(error).is_ok();
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
                // A changed comment or order is no reason for a restart.
                Ok(new) if new == config => continue,
                Ok(_) => "changed on disk".into(),
                Err(error) => error,
            };
            // When this returns, everything that was built from the old configuration is down.
            running.fail(reason);
            break;
        }
    }
}
