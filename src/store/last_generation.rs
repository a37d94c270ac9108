//! The end of the generations: a service behaves in its last generations as in all others. Then it
//! stays down permanently, without an effect on other services.

use std::{sync::Arc, time::Duration};

use crate::{FailOutcome, Instance, Phase, Registry, error::BeginError, numbers::Generation};

const LAST: u64 = Generation::LAST.get();
const SOON: Duration = Duration::from_millis(1);

#[test]
fn the_last_generation_is_never_built() -> Result<(), Box<dyn std::error::Error>> {
    let registry = Registry::with_capacity(3)?;
    let config = registry.register::<u8>("config")?;
    let [worn, fresh] = ["worn", "fresh"].map(|name| registry.register::<Arc<u64>>(name));
    let (worn, fresh) = (worn?, fresh?);
    for dependent in [worn, fresh] {
        registry.depends(dependent).on(config)?;
    }
    let slot = registry.store().slot(worn.index());
    slot.state.set_for_test(Generation::new(LAST - 3));
    slot.condemned.set_for_test(Generation::new(LAST - 3));

    let provide_config = registry.provide(config)?;
    let (provide_worn, provide_fresh) = (registry.provide(worn)?, registry.provide(fresh)?);
    let mut config_runs = provide_config.begin().wait_blocking()?.ready(0)?;
    for generation in LAST - 3..LAST {
        let value = Arc::new(generation);
        let attempt = provide_worn.begin().wait_blocking()?;
        assert_eq!(attempt.generation(), generation);
        attempt.wait_for(config).wait_blocking()?;
        let running = attempt.ready(Arc::clone(&value))?;
        let instance = registry.get_arc(worn)?;
        assert!(running.failed().wait_blocking_timeout(SOON).is_err(), "it has not failed yet");

        // Fails alone, by `fail_instance`, and together with its dependency.
        match generation % 3 {
            0 => assert_eq!(registry.fail(worn, "out")?.failed, 1),
            1 => {
                assert!(matches!(registry.fail_instance(&instance, "out")?, FailOutcome::Failed(_)))
            }
            _ => {
                registry.fail(config, "out")?;
                drop(std::mem::replace(
                    &mut config_runs,
                    provide_config.begin().wait_blocking()?.ready(0)?,
                ));
            }
        }
        assert_eq!(running.failed().wait_blocking()?.generation, generation);
        assert_eq!(registry.fail_instance(&instance, "again")?, FailOutcome::AlreadyFailed);
        assert!(registry.get(worn).is_err());
        assert_eq!(registry.status(worn)?.generation, generation + 1);
        assert_eq!(Instance::generation(&instance), generation);
        drop((running, instance));
        assert_eq!(Arc::strong_count(&value), 1, "the slot keeps the failed value");
    }

    // The service stays down: no attempt begins, and a failure changes nothing.
    let worn_out = || -> Result<(), Box<dyn std::error::Error>> {
        let begun = provide_worn.begin().wait_blocking_timeout(SOON);
        assert!(matches!(begun, Err(BeginError::TimedOut { .. })));
        assert_eq!(registry.fail(worn, "once more")?, Default::default());
        let status = registry.status(worn)?;
        assert_eq!((status.generation, status.phase), (Generation::LAST, Phase::Down));
        Ok(())
    };
    worn_out()?;

    // Its dependency, and another dependent of that one, continue.
    let attempt = provide_fresh.begin().wait_blocking()?;
    attempt.wait_for(config).wait_blocking()?;
    let _fresh_runs = attempt.ready(Arc::new(0))?;
    assert_eq!(registry.fail(config, "edited")?.failed, 2);
    worn_out()?;
    drop(config_runs);
    drop(provide_config.begin().wait_blocking()?.ready(1)?);
    worn_out()?;

    registry.close();
    assert!(matches!(provide_worn.begin().wait_blocking(), Err(BeginError::Closed { .. })));
    Ok(())
}
