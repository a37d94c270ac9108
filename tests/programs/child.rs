//! The programs.

use std::{
    error::Error,
    io::{self, Write},
    process::{Termination, exit},
    sync::mpsc,
    thread,
    time::Duration,
};

use mainstay::{
    Registry, ServiceId,
    error::WaitForError,
    program::{Program, ProgramOutcome, ProgramStart, stop_signal},
    supervise::RestartPolicy,
};

/// The variable with the name of the program.
pub(crate) const PROGRAM: &str = "MAINSTAY_TEST_PROGRAM";

/// A limit that is never reached.
const LONG: Duration = Duration::from_secs(600);

type BoxError = Box<dyn Error + Send + Sync>;

mainstay::services! {
    #[derive(Clone, Copy)]
    struct Services { a: u32, b: u32 }
}

/// Runs the program, and ends the process as a `main` with this outcome does.
pub(crate) fn run(program: &str) -> ! {
    // The line in which the test harness has written the name of the test.
    say("");
    let outcome = match program {
        "threads" => on_threads(),
        "tokio" => on_tokio(),
        "smol" => on_smol(),
        "stubborn" => stubborn(LONG, LONG),
        "late body" => stubborn(Duration::from_millis(20), LONG),
        "late" => late(),
        "deaf" => deaf(),
        "by hand" => by_hand(),
        "ending" => ending(),
        "panicking" => panicking(),
        "failing" => failing(),
        "requesting" => requesting(),
        _ => Err("there is no such program".into()),
    };
    match outcome {
        Ok(outcome) => {
            let code = outcome.exit_code();
            if outcome.is_success() {
                say(&outcome.to_string());
            }
            let _ = outcome.report();
            exit(code.into())
        }
        Err(error) => panic!("{error}"),
    }
}

fn say(line: &str) {
    writeln!(io::stdout(), "{line}").and_then(|()| io::stdout().flush()).unwrap();
}

/// Says when all services are ready.
fn say_ready(registry: &Registry) {
    let registry = registry.clone();
    thread::spawn(move || {
        registry.wait_all_ready().wait_blocking().unwrap();
        say("ready");
    });
}

/// Two services, of which `b` is built from `a`; each says when it is closed.
fn start(start: &mut ProgramStart, services: Services) -> Result<(), BoxError> {
    let registry = start.registry().clone();
    let Services { a, b } = services;
    let supervisor = registry.supervise(a)?.on_close(async |_| say("a is closed"));
    start.spawn_blocking(supervisor, |it| it.run_blocking(|_| 1))?;
    let supervisor = registry.supervise(b)?.on_close(async |_| say("b is closed"));
    start.spawn(supervisor, |it| {
        it.run(async move |build| Ok::<_, WaitForError>(**build.wait_for(a).await? + 1))
    })?;
    Ok(())
}

fn on_threads() -> Result<ProgramOutcome, BoxError> {
    let (registry, services) = Services::build()?;
    let program = Program::on_threads(&registry).stop_when(stop_signal()?);
    say_ready(&registry);
    Ok(program.run_blocking(|it| start(it, services)))
}

fn on_tokio() -> Result<ProgramOutcome, BoxError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let (registry, services) = Services::build()?;
    let program = Program::on_tokio(&registry, runtime.handle().clone()).stop_when(stop_signal()?);
    say_ready(&registry);
    Ok(runtime.block_on(program.run(|it| start(it, services))))
}

fn on_smol() -> Result<ProgramOutcome, BoxError> {
    let (registry, services) = Services::build()?;
    let program = Program::on_smol(&registry).stop_when(stop_signal()?);
    say_ready(&registry);
    Ok(smol::block_on(program.run(|it| start(it, services))))
}

/// A body that does not end.
fn stubborn(limit: Duration, of_body: Duration) -> Result<ProgramOutcome, BoxError> {
    let registry = Registry::with_capacity(1)?;
    let a: ServiceId<u32> = registry.register("a")?;
    let program = Program::on_threads(&registry).shutdown(limit).stop_when(stop_signal()?);
    say_ready(&registry);
    Ok(program.run_blocking(|start| {
        let policy = RestartPolicy::default().stop_timeout(of_body);
        let supervisor = registry.supervise(a)?.restart_policy(policy).body_blocking(|live| {
            let _ = live.stopping().wait_blocking();
            say("the body continues");
            thread::sleep(LONG);
        });
        start.spawn_blocking(supervisor, |it| it.run_blocking(|_| 1))?;
        Ok::<_, BoxError>(())
    }))
}

fn late() -> Result<ProgramOutcome, BoxError> {
    let (registry, services) = Services::build()?;
    let stop = stop_signal()?;
    say("installed");
    io::stdin().read_line(&mut String::new())?;
    let program = Program::on_threads(&registry).stop_when(stop);
    Ok(program.run_blocking(|it| {
        start(it, services)?;
        it.registry().wait_all_ready().wait_blocking()?;
        Ok::<_, BoxError>(())
    }))
}

fn deaf() -> Result<ProgramOutcome, BoxError> {
    drop(stop_signal()?);
    say("installed");
    thread::sleep(LONG);
    Err("no signal".into())
}

fn by_hand() -> Result<ProgramOutcome, BoxError> {
    let (first, second) = (stop_signal()?, stop_signal()?);
    let first = thread::spawn(|| first.wait_blocking());
    let second = smol::spawn(second);
    say("ready");
    let first = first.join().unwrap()?;
    let second = smol::block_on(second);
    // One that is created after the signal.
    let third = stop_signal()?.wait_blocking()?;
    say(&format!("{first}, {second} and {third}"));
    exit(0)
}

/// A signal arrives while the program ends for another reason.
fn ending() -> Result<ProgramOutcome, BoxError> {
    let registry = Registry::with_capacity(1)?;
    let a: ServiceId<u32> = registry.register("a")?;
    let program = Program::on_threads(&registry).shutdown(LONG).stop_when(stop_signal()?);
    Ok(program.run_blocking(|start| {
        let policy = RestartPolicy::default().stop_timeout(LONG);
        let supervisor = registry.supervise(a)?.restart_policy(policy).body_blocking(|live| {
            let _ = live.stopping().wait_blocking();
            let signal = stop_signal().unwrap();
            say("the body continues");
            let signal = signal.wait_blocking().unwrap();
            say(&format!("{signal} is the reason of the body"));
        });
        start.spawn_blocking(supervisor, |it| it.run_blocking(|_| 1))?;
        registry.wait_all_ready().wait_blocking()?;
        registry.request_shutdown("nothing to do");
        Ok::<_, BoxError>(())
    }))
}

fn panicking() -> Result<ProgramOutcome, BoxError> {
    let (registry, services) = Services::build()?;
    let program = Program::on_smol(&registry).stop_when(stop_signal()?);
    Ok(program.run_blocking(|start| {
        start.spawn(registry.supervise(services.b)?, |it| it.run(async |_| 1))?;
        start.spawn(registry.supervise(services.a)?, |_| async { panic!("no clock") })?;
        Ok::<_, BoxError>(())
    }))
}

fn failing() -> Result<ProgramOutcome, BoxError> {
    let (registry, services) = Services::build()?;
    let program = Program::on_threads(&registry).stop_when(stop_signal()?);
    Ok(program.run_blocking(|it| {
        start(it, services)?;
        it.registry().wait_all_ready().wait_blocking()?;
        let _port: u16 = "http".parse()?;
        Ok::<_, BoxError>(())
    }))
}

fn requesting() -> Result<ProgramOutcome, BoxError> {
    let registry = Registry::with_capacity(1)?;
    let a: ServiceId<mpsc::Sender<u32>> = registry.register("a")?;
    let (sender, jobs) = mpsc::channel();
    let program = Program::on_threads(&registry).stop_when(stop_signal()?);
    Ok(program.run_blocking(|start| {
        let supervisor = registry.supervise(a)?.exclusive_body_blocking({
            let registry = registry.clone();
            move |live| {
                if jobs.try_recv().is_err() {
                    registry.request_shutdown("the queue is empty");
                }
                let _ = live.stopping().wait_blocking();
            }
        });
        start.spawn_blocking(supervisor, move |it| it.run_blocking(|_| sender.clone()))?;
        Ok::<_, BoxError>(())
    }))
}
