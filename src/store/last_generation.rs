//! At the end of the generations: a service goes through the last ones as through all others, and is then down
//! for good. It takes nobody with it.

use std::{sync::Arc, time::Duration};

use super::Tag;
use crate::{BeginError, Instance, Phase, Registry, Report};

const SOON: Duration = Duration::from_millis(1);

#[test]
fn the_last_generation_is_never_built() -> Result<(), Box<dyn std::error::Error>> {
    let registry = Registry::with_capacity(3)?;
    let config = registry.register::<u8>("config")?;
    let [worn, fresh] = ["worn", "fresh"].map(|name| registry.register::<Arc<u64>>(name));
    let (worn, fresh) = (worn?, fresh?);
    for dependent in [worn, fresh] {
        registry.add_dependency(dependent, config)?;
    }
    let slot = registry.store().slot(worn.index());
    slot.state.failed_so_often(Tag::LAST - 3);
    slot.condemned.failed_so_often(Tag::LAST - 3);

    let provide_config = registry.provide(config)?;
    let (provide_worn, provide_fresh) = (registry.provide(worn)?, registry.provide(fresh)?);
    let mut config_runs = provide_config.begin().wait()?.ready(0)?;
    for generation in Tag::LAST - 3..Tag::LAST {
        let value = Arc::new(generation);
        let attempt = provide_worn.begin().wait()?;
        assert_eq!(attempt.generation(), generation);
        attempt.wait_for(config).wait()?;
        let running = attempt.ready(Arc::clone(&value))?;
        let instance = registry.get_arc(worn)?;
        assert!(running.failed().wait_timeout(SOON).is_err(), "it has not failed yet");

        // By itself, by a report, with its dependency.
        match generation % 3 {
            0 => assert_eq!(registry.fail(worn, "out")?.went_down, 1),
            1 => assert!(matches!(registry.report(&instance, "out")?, Report::Failed(_))),
            _ => {
                registry.fail(config, "out")?;
                drop(std::mem::replace(&mut config_runs, provide_config.begin().wait()?.ready(0)?));
            }
        }
        assert_eq!(running.failed().wait()?.generation, generation);
        assert_eq!(registry.report(&instance, "again")?, Report::AlreadyFailed);
        assert!(registry.get(worn).is_err());
        assert_eq!(registry.status(worn)?.generation, generation + 1);
        assert_eq!(Instance::generation(&instance), generation);
        drop((running, instance));
        assert_eq!(Arc::strong_count(&value), 1, "the slot keeps what has failed");
    }

    // Down for good: nothing begins, and failing it changes nothing.
    let worn_out = || -> Result<(), Box<dyn std::error::Error>> {
        let begun = provide_worn.begin().wait_timeout(SOON);
        assert!(matches!(begun, Err(BeginError::TimedOut { .. })));
        assert_eq!(registry.fail(worn, "once more")?, Default::default());
        let status = registry.status(worn)?;
        assert_eq!((status.generation, status.phase), (Tag::LAST, Phase::Down));
        Ok(())
    };
    worn_out()?;

    // Its dependency, and what else is built on that, go on.
    let attempt = provide_fresh.begin().wait()?;
    attempt.wait_for(config).wait()?;
    let _fresh_runs = attempt.ready(Arc::new(0))?;
    assert_eq!(registry.fail(config, "edited")?.went_down, 2);
    worn_out()?;
    drop(config_runs);
    drop(provide_config.begin().wait()?.ready(1)?);
    worn_out()?;

    registry.close();
    assert!(matches!(provide_worn.begin().wait(), Err(BeginError::Closed { .. })));
    Ok(())
}
