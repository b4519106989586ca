//! The optional health source: a real library of C with the vendor's interface, loaded by a real
//! agent process, well and ill.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod daemon;
mod fake;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use ix_device_plugin::daemon::ixml_source::{IxmlSettings, IxmlSource};
use ix_device_plugin::model::ixml::{
    CallFailure, ChipReading, CodeClass, EccErrors, HealthBits, IxmlCall, IxmlChoice, IxmlState,
    ReturnCode,
};

use fake::{Fake, LONG, SHORT, chip, is_gone, read_until, reading_of, settings, wait_until_gone};

/// Where the fake has its first chip, and its second.
const FIRST: &str = "0000:10:00.0";
const SECOND: &str = "0000:11:00.0";

fn failure(call: IxmlCall, code: i32) -> CallFailure {
    CallFailure { call, code: ReturnCode(code) }
}

fn well() -> ChipReading {
    ChipReading {
        health: Some(HealthBits(0)),
        ecc: Some(EccErrors::default()),
        temperature: Some(0),
        failure: None,
    }
}

fn is_reading(state: &IxmlState) -> bool {
    matches!(state, IxmlState::Reading(_))
}

/// Checks what a fake that was told `control` says of its first chip.
async fn check(control: &str, expected: ChipReading) {
    let fake = Fake::new(&[], control);
    assert_eq!(fake.reading(FIRST).await, expected, "{control}");
}

/// Checks the state after the first read of a fake that was told `control`; `{library}` stands for
/// its path.
async fn check_state(defines: &[&str], control: &str, expected: &str) {
    let fake = Fake::new(defines, control);
    let state = fake.source().read(&[chip(FIRST)], LONG).await;
    let library = fake.library().display().to_string();
    assert_eq!(state.to_string(), expected.replace("{library}", &library));
}

#[tokio::test]
async fn a_chip_is_read_with_health_ecc_counters_and_temperature() {
    let expected = ChipReading {
        ecc: Some(EccErrors { single: 7, double: 2 }),
        temperature: Some(61),
        ..well()
    };
    check("single.0 7\ndouble.0 2\ntemperature.0 61\n", expected).await;
}

#[tokio::test]
async fn each_health_bit_is_reported_by_its_name() {
    let fake = Fake::new(&[], "");
    let (mut source, first) = (fake.source(), chip(FIRST));
    for (bit, name) in HealthBits::NAMES {
        fake.control(&format!("health.0 {bit:#x}\n"));
        let health = reading_of(&source.read(&[first], LONG).await, first).health.unwrap();
        assert_eq!(health.to_string(), name);
    }
    fake.control("health.0 0xffffffffffffffff\n");
    let health = reading_of(&source.read(&[first], LONG).await, first).health;
    assert_eq!(health, Some(HealthBits(u64::MAX)));
}

#[tokio::test]
async fn a_lost_chip_is_reported_and_the_others_are_read_as_ever() {
    let (fake, chips) = (Fake::new(&[], ""), [FIRST, SECOND].map(chip));
    for code in [15, 16] {
        fake.control(&format!("count 2\nhealth.0.code {code}\n"));
        let state = fake.source().read(&chips, LONG).await;
        let lost = reading_of(&state, chips[0]);
        assert_eq!((lost.health, lost.failure), (None, Some(failure(IxmlCall::Health, code))));
        assert_eq!(ReturnCode(code).class(), CodeClass::Fatal);
        assert_eq!(reading_of(&state, chips[1]), well());
    }
}

#[tokio::test]
async fn a_chip_that_is_lost_already_when_it_is_looked_up_has_no_counters() {
    let expected =
        ChipReading { failure: Some(failure(IxmlCall::Handle, 15)), ..ChipReading::default() };
    check("handle.0.code 15\n", expected).await;
}

#[tokio::test]
async fn what_a_chip_does_not_support_is_absent_and_no_failure() {
    let expected = ChipReading { ecc: None, temperature: None, ..well() };
    check("ecc.0.code 3\ntemperature.0.code 13\n", expected).await;
}

#[tokio::test]
async fn a_transient_code_is_reported_with_the_call_and_hides_no_other_counter() {
    let fake = Fake::new(&[], "");
    for code in [10, 11, 17, 19, 999] {
        fake.control(&format!("temperature.0.code {code}\n"));
        let failure = Some(failure(IxmlCall::Temperature, code));
        let expected = ChipReading { temperature: None, failure, ..well() };
        assert_eq!(fake.reading(FIRST).await, expected);
    }
}

#[tokio::test]
async fn of_several_failures_the_gravest_is_reported() {
    let reading = Fake::new(&[], "health.0.code 10\necc.0.code 16\ntemperature.0.code 2\n");
    assert_eq!(reading.reading(FIRST).await.failure, Some(failure(IxmlCall::Ecc, 16)));
}

#[tokio::test]
async fn a_function_that_the_library_does_not_have_is_a_counter_less() {
    let cases = [
        ("WITHOUT_HEALTH", ChipReading { health: None, ..well() }),
        ("WITHOUT_ECC", ChipReading { ecc: None, ..well() }),
        ("WITHOUT_TEMPERATURE", ChipReading { temperature: None, ..well() }),
    ];
    for (define, expected) in cases {
        assert_eq!(Fake::new(&[define], "").reading(FIRST).await, expected, "{define}");
    }
}

#[tokio::test]
async fn a_library_with_nothing_but_the_old_names_is_read() {
    let fake = Fake::new(&["PLAIN_NAMES"], "temperature.0 50\n");
    assert_eq!(fake.reading(FIRST).await, ChipReading { temperature: Some(50), ..well() });
    let fake = Fake::new(&["PLAIN_NAMES", "WITHOUT_LOOKUP"], "temperature.0 51\n");
    assert_eq!(fake.reading(FIRST).await, ChipReading { temperature: Some(51), ..well() });
}

#[tokio::test]
async fn chips_are_matched_by_bus_id_in_every_spelling() {
    let spellings = [
        ("0000:8a:00.0", "0000:8a:00.0"),
        ("00000000:8A:00.0", "0000:8a:00.0"),
        ("00000001:01:1F.0", "0001:01:1f.0"),
        ("00010000:E1:00.0", "10000:e1:00.0"),
        // The library has no function number to give.
        ("00000000:3D:00.0", "0000:3d:00.1"),
    ];
    for defines in [&[][..], &["WITHOUT_LOOKUP"]] {
        let fake = Fake::new(defines, "");
        for (spelling, address) in spellings {
            fake.control(&format!("count 2\nbus.1 {spelling}\ntemperature.1 99\n"));
            let reading = fake.reading(address).await;
            assert_eq!(reading.temperature, Some(99), "{spelling} {defines:?}");
        }
    }
}

#[tokio::test]
async fn a_chip_that_the_library_does_not_know_is_no_other_chip() {
    let unknown =
        ChipReading { failure: Some(failure(IxmlCall::Handle, 6)), ..ChipReading::default() };
    for defines in [&[][..], &["WITHOUT_LOOKUP"]] {
        let fake = Fake::new(defines, "");
        assert_eq!(fake.reading("0001:10:00.0").await, unknown, "{defines:?}");
    }
    let fake = Fake::new(&[], "null 1\n");
    assert_eq!(fake.reading(FIRST).await, unknown);
}

#[tokio::test]
async fn a_chip_that_came_after_the_library_looked_is_read_nevertheless() {
    let fake = Fake::new(&[], "count 1\n");
    let (mut source, chips) = (fake.source(), [FIRST, SECOND].map(chip));
    assert!(is_reading(&source.read(&chips[..1], LONG).await));
    fake.control("count 2\n");
    let state = source.read(&chips, LONG).await;
    assert_eq!(reading_of(&state, chips[0]), well());
    assert_eq!(reading_of(&state, chips[1]), well());
}

#[tokio::test]
async fn a_library_that_cannot_initialise_is_unusable_with_the_reason() {
    let check = async |code: i32, words: &str| {
        let expected = format!("libixml cannot be used: {{library}}: nvmlInit answered {words}");
        check_state(&[], &format!("init.code {code}\n"), &expected).await;
    };
    check(1, "UNINITIALIZED (1)").await;
    check(9, "DRIVER_NOT_LOADED (9); load the kernel driver").await;
    let words = "LIB_RM_VERSION_MISMATCH (18); mount the library of the driver that this host runs";
    check(18, words).await;
}

#[tokio::test]
async fn a_library_that_loses_its_driver_is_unusable_until_it_can_begin_again() {
    let fake = Fake::new(&[], "");
    let (mut source, chips) = (fake.source(), [chip(FIRST)]);
    assert!(is_reading(&source.read(&chips, LONG).await));
    fake.control("health.0.code 9\ninit.code 9\n");
    let state = source.read(&chips, LONG).await.to_string();
    assert!(state.contains("ixmlDeviceGetHealth answered DRIVER_NOT_LOADED (9)"), "{state}");
    let state =
        read_until(&mut source, &chips, LONG, |state| state.to_string().contains("nvmlInit")).await;
    assert!(matches!(state, IxmlState::Unusable(_)), "{state}");
    fake.control("");
    read_until(&mut source, &chips, LONG, is_reading).await;
}

#[tokio::test]
async fn an_unusable_library_is_left_alone_for_the_length_of_the_pause() {
    let fake = Fake::new(&[], "init.code 9\n");
    let mut settings = settings(IxmlChoice::Path(fake.library()));
    settings.retry.first_delay = LONG;
    settings.retry.longest_delay = LONG;
    let mut source = IxmlSource::start(settings);
    let before = source.read(&[chip(FIRST)], LONG).await;
    fake.control("");
    for _ in 0..3 {
        assert_eq!(source.read(&[chip(FIRST)], LONG).await, before);
    }
}

/// A source whose last reading was 40 degrees and whose library hangs in this function.
async fn hanging(fake: &Fake, function: &str, settings: IxmlSettings) -> (IxmlSource, IxmlState) {
    fake.control("temperature.0 40\n");
    let mut source = IxmlSource::start(settings);
    assert!(is_reading(&source.read(&[chip(FIRST)], LONG).await));
    fake.control(&format!("hang {function}\n"));
    let state = source.read(&[chip(FIRST)], SHORT).await;
    (source, state)
}

#[tokio::test]
async fn a_call_that_hangs_ends_with_the_deadline_and_the_last_reading_stays() {
    let fake = Fake::new(&[], "");
    for function in ["handle", "health", "ecc", "temperature"] {
        let settings = settings(IxmlChoice::Path(fake.library()));
        let (_source, state) = hanging(&fake, function, settings).await;
        let IxmlState::Stalled { last: Some(last), .. } = state else { panic!("{state}") };
        assert_eq!(last.chips[&chip(FIRST)].temperature, Some(40));
    }
}

#[tokio::test]
async fn a_library_that_hangs_from_the_beginning_has_no_last_reading() {
    let fake = Fake::new(&[], "hang init\n");
    let mut source = fake.source();
    let state = source.read(&[chip(FIRST)], SHORT).await;
    assert!(matches!(state, IxmlState::Stalled { last: None, .. }), "{state}");
    fake.control("");
    read_until(&mut source, &[chip(FIRST)], LONG, is_reading).await;
}

#[tokio::test]
async fn while_an_answer_is_overdue_a_read_waits_for_nothing() {
    let fake = Fake::new(&[], "");
    let (mut source, first) =
        hanging(&fake, "health", settings(IxmlChoice::Path(fake.library()))).await;
    // The deadline is longer than the patience of the test: waiting for it would be noticed.
    let chips = [chip(FIRST)];
    let again = tokio::time::timeout(LONG, source.read(&chips, 2 * LONG)).await;
    let again = again.expect("it comes back at once");
    assert_eq!(again, first, "stalled since the same moment, with the same last reading");
}

#[tokio::test]
async fn an_answer_that_comes_late_is_a_recovery_and_is_asked_for_anew() {
    let fake = Fake::new(&[], "");
    let (mut source, _) =
        hanging(&fake, "temperature", settings(IxmlChoice::Path(fake.library()))).await;
    // The late answer has the temperature from before the call hung.
    fake.control("temperature.0 77\n");
    let chips = [chip(FIRST)];
    let state = read_until(&mut source, &chips, LONG, is_reading).await;
    assert_eq!(reading_of(&state, chips[0]).temperature, Some(77));
}

#[tokio::test]
async fn a_library_that_hangs_for_too_long_is_killed_and_started_again() {
    let fake = Fake::new(&[], "");
    let mut settings = settings(IxmlChoice::Path(fake.library()));
    // Enough for the agent to come to the call that hangs.
    settings.retry.answer_timeout = Duration::from_secs(1);
    let (mut source, chips) = (IxmlSource::start(settings), [chip(FIRST)]);
    assert!(is_reading(&source.read(&chips, LONG).await));
    fake.control("stick health\n");
    let sticks = |_: &IxmlState| fake.stuck().is_some();
    let state = read_until(&mut source, &chips, SHORT, sticks).await;
    assert!(matches!(state, IxmlState::Stalled { .. }), "{state}");
    let stuck = fake.stuck().unwrap();
    fake.control("");
    read_until(&mut source, &chips, LONG, is_reading).await;
    assert!(is_gone(&stuck));
    assert_ne!(fake.pid(), stuck);
}

#[tokio::test]
async fn a_source_that_is_dropped_leaves_no_agent_behind_even_if_it_hangs() {
    let fake = Fake::new(&[], "");
    let settings = settings(IxmlChoice::Path(fake.library()));
    let (source, _) = hanging(&fake, "health", settings).await;
    assert!(!is_gone(&fake.pid()));
    drop(source);
    wait_until_gone(&fake.pid()).await;
}

#[tokio::test]
async fn a_read_that_is_dropped_halfway_spoils_nothing() {
    let fake = Fake::new(&[], "");
    let (mut source, chips) = (fake.source(), [chip(FIRST)]);
    assert!(is_reading(&source.read(&chips, LONG).await));
    fake.control("hang health\n");
    assert!(tokio::time::timeout(SHORT, source.read(&chips, LONG)).await.is_err());
    fake.control("temperature.0 55\n");
    let state = source.read(&chips, LONG).await;
    assert_eq!(reading_of(&state, chips[0]).temperature, Some(55));
}

#[tokio::test]
async fn a_library_that_crashes_takes_its_agent_along_and_nobody_else() {
    let fake = Fake::new(&[], "abort ecc\n");
    let (mut source, chips) = (fake.source(), [chip(FIRST)]);
    let state = source.read(&chips, LONG).await.to_string();
    let expected = "libixml cannot be used: its agent died, signal: 6 (SIGABRT)";
    assert!(state.starts_with(expected), "{state}");
    fake.control("");
    read_until(&mut source, &chips, LONG, is_reading).await;
}

#[tokio::test]
async fn a_library_that_does_not_fit_its_dependencies_is_unusable_at_the_first_call() {
    let expected = "libixml cannot be used: its agent died, exit status: 127";
    check_state(&["UNRESOLVED"], "", expected).await;
}

#[tokio::test]
async fn a_missing_file_is_reported_with_the_loaders_error() {
    let mut source = IxmlSource::start(settings(IxmlChoice::Path("/nowhere/libixml.so".into())));
    let expected = "libixml could not be loaded, tried: /nowhere/libixml.so: cannot open shared \
                    object file: No such file or directory";
    assert_eq!(source.read(&[], LONG).await.to_string(), expected);
}

#[tokio::test]
async fn a_missing_dependency_is_reported_by_name() {
    let fake = fake_with_thunk("elsewhere");
    let state = fake.source().read(&[], LONG).await.to_string();
    let library = fake.library();
    let expected = format!(
        "libixml could not be loaded, tried: {}: libixthunk.so: cannot open shared object file: \
         No such file or directory",
        library.display()
    );
    assert_eq!(state, expected);
}

#[tokio::test]
async fn a_dependency_is_found_beside_the_library() {
    assert_eq!(fake_with_thunk(".").reading(FIRST).await, well());
}

/// A library that needs libixthunk.so, which lies in this directory.
fn fake_with_thunk(directory: &str) -> Fake {
    let fake = Fake::new(&[], "");
    let thunk = fake.path().join(directory).join("libixthunk.so");
    std::fs::create_dir_all(thunk.parent().unwrap()).unwrap();
    fake.compile_thunk(&thunk);
    fake.compile(&fake.library(), &["NEEDS_THUNK"], &[thunk.to_str().unwrap()]);
    fake
}

#[tokio::test]
async fn auto_takes_the_first_library_that_loads() {
    let fake = Fake::new(&[], "");
    let [bad, good] = ["lib64", "lib"].map(|name| fake.path().join(name));
    std::fs::create_dir(&bad).unwrap();
    std::fs::create_dir(&good).unwrap();
    std::fs::write(bad.join("libixml.so"), "not a library").unwrap();
    fake.compile(&good.join("libixml.so"), &[], &[]);
    let mut settings = settings(IxmlChoice::Auto);
    settings.env.corex_home = Some(fake.path().to_owned());
    let state = IxmlSource::start(settings).read(&[chip(FIRST)], LONG).await;
    assert_eq!(state.to_string(), format!("{}/libixml.so answers", good.display()));
}

#[tokio::test]
async fn without_a_library_each_path_that_was_tried_is_reported() {
    let mut source = IxmlSource::start(settings(IxmlChoice::Auto));
    let IxmlState::NotFound(tried) = source.read(&[], LONG).await else {
        panic!("this machine has a libixml");
    };
    let tried: Vec<_> = tried.iter().map(|tried| tried.path.to_str().unwrap()).collect();
    let expected = [
        "/usr/local/corex/lib64/libixml.so",
        "/usr/local/corex/lib/libixml.so",
        "/usr/local/iluvatar/lib64/libixml.so",
        "libixml.so",
    ];
    assert_eq!(tried, expected);
}

#[tokio::test]
async fn a_library_that_comes_later_is_found() {
    let fake = Fake::new(&[], "");
    let hidden = fake.path().join("hidden");
    std::fs::rename(fake.library(), &hidden).unwrap();
    let (mut source, chips) = (fake.source(), [chip(FIRST)]);
    assert!(matches!(source.read(&chips, LONG).await, IxmlState::NotFound(_)));
    std::fs::rename(hidden, fake.library()).unwrap();
    read_until(&mut source, &chips, LONG, is_reading).await;
}

#[tokio::test]
async fn a_source_that_is_off_starts_nothing() {
    let settings = IxmlSettings { program: "/nowhere/program".into(), ..settings(IxmlChoice::Off) };
    assert_eq!(IxmlSource::start(settings).read(&[], LONG).await, IxmlState::Off);
}

/// Checks the state of a source whose agent is another program.
async fn check_program(program: &str, expected: &str) {
    let choice = IxmlChoice::Path("libixml.so".into());
    let settings = IxmlSettings { program: program.into(), ..settings(choice) };
    let state = IxmlSource::start(settings).read(&[], LONG).await;
    assert_eq!(state.to_string(), expected);
}

#[tokio::test]
async fn an_agent_that_cannot_be_started_or_talks_nonsense_is_unusable() {
    check_program(
        "/nowhere/program",
        "libixml cannot be used: its agent cannot be started: No such file or directory (os error 2)",
    )
    .await;
    check_program(
        "/bin/echo",
        "libixml cannot be used: its agent's reply is not a line of this version: expected value at line \
         1 column 1",
    )
    .await;
    check_program("/bin/true", "libixml cannot be used: its agent died, exit status: 0").await;
}

/// The agent as a person would start it.
fn agent(fake: &Fake) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ix-device-plugin"));
    command.args(["ixml-agent", "--"]).arg(fake.library());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

#[test]
fn what_the_library_prints_is_kept_apart_from_the_messages() {
    let fake = Fake::new(&[], "noise 1\ntemperature.0 45\n");
    let mut agent = agent(&fake).spawn().unwrap();
    writeln!(agent.stdin.take().unwrap(), "[\"{FIRST}\"]").unwrap();
    let output = agent.wait_with_output().unwrap();
    let library = fake.library();
    let expected = format!(
        "{{\"ready\":\"{}\"}}\n{{\"reading\":{{\"{FIRST}\":{{\"health\":0,\"ecc\":{{\"single\":0,\
         \"double\":0}},\"temperature\":45}}}}}}\n",
        library.display()
    );
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    assert!(output.status.success());
}

#[tokio::test]
async fn an_agent_dies_with_its_parent_even_while_the_library_hangs() {
    let fake = Fake::new(&[], "hang health\n");
    let mut shell = Command::new("sh");
    // A command after it keeps the shell from becoming the agent.
    shell.args(["-c", "\"$0\" ixml-agent -- \"$1\"; true"]);
    shell.arg(env!("CARGO_BIN_EXE_ix-device-plugin")).arg(fake.library());
    let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut requests = shell.stdin.take().unwrap();
    let mut answers = BufReader::new(shell.stdout.take().unwrap()).lines();
    assert!(answers.next().unwrap().unwrap().starts_with("{\"ready\""));
    writeln!(requests, "[\"{FIRST}\"]").unwrap();
    shell.kill().unwrap();
    shell.wait().unwrap();
    // The pipe is still open, so it is not the end of its input that ends it.
    wait_until_gone(&fake.pid()).await;
    drop(requests);
}
