//! Flags may come before the verb: `--root my.node discover` means `discover --root my.node`.
//! Without a verb, `run` is meant. Each verb then accepts or refuses the flags itself, so none is
//! dropped.

use std::ffi::{OsStr, OsString};

use clap::{Arg, Command};

/// What is meant where no verb is given.
const DEFAULT_VERB: &str = "run";

/// The arguments with the words of the verb in front of all flags. The first is the program.
pub(super) fn verb_first(
    command: &Command,
    arguments: impl IntoIterator<Item = OsString>,
) -> Vec<OsString> {
    let mut rest = arguments.into_iter().map(two_dashes).peekable();
    let (mut words, mut flags): (Vec<_>, Vec<_>) = (rest.next().into_iter().collect(), Vec::new());
    let mut verb = command;
    while let Some(argument) = rest.next_if(|argument| argument != "--") {
        if is_flag(&argument) {
            let value = if has_value_behind(command, &argument) { rest.next() } else { None };
            flags.extend([argument].into_iter().chain(value));
            continue;
        }
        let next = argument.to_str().and_then(|word| verb.find_subcommand(word));
        words.push(argument);
        match next {
            Some(next) if next.has_subcommands() => verb = next,
            _ => break,
        }
    }
    if words.len() == 1 && !flags.iter().any(is_about_the_program) {
        words.push(DEFAULT_VERB.into());
    }
    words.extend(flags);
    words.extend(rest);
    words
}

/// The flags of the replaced plugin, which takes them with one dash too.
const ONE_DASH_FLAGS: [&str; 3] = ["splitboard", "usevolcano", "reset_gpu"];

fn two_dashes(argument: OsString) -> OsString {
    let name = argument.to_str().and_then(|text| text.strip_prefix('-')?.split('=').next());
    if name.is_some_and(|name| ONE_DASH_FLAGS.contains(&name)) {
        return ["-".into(), argument].into_iter().collect();
    }
    argument
}

fn is_flag(argument: &OsString) -> bool {
    argument.len() > 1 && argument.as_encoded_bytes().starts_with(b"-")
}

fn is_about_the_program(flag: &OsString) -> bool {
    ["-h", "--help", "-V", "--version"].iter().any(|about| flag == about)
}

/// Whether the next argument is the value of this flag.
fn has_value_behind(command: &Command, flag: &OsStr) -> bool {
    let Some(flag) = flag.to_str() else { return false };
    let Some(long) = flag.strip_prefix("--") else {
        return has_value_behind_short(command, flag.trim_start_matches('-'));
    };
    find(command, &|arg| arg.get_long() == Some(long)).is_some_and(takes_value_behind)
}

/// A cluster such as `-vo`: the value follows where the last letter takes one.
fn has_value_behind_short(command: &Command, letters: &str) -> bool {
    let takes = |letter| {
        find(command, &|arg| arg.get_short() == Some(letter)).is_some_and(takes_value_behind)
    };
    letters.find(takes).is_some_and(|first| first + 1 == letters.len())
}

fn takes_value_behind(arg: &Arg) -> bool {
    arg.get_action().takes_values() && !arg.is_require_equals_set()
}

/// The first flag of any verb that is meant. A name has one meaning in all verbs.
fn find<'c>(command: &'c Command, is_meant: &impl Fn(&Arg) -> bool) -> Option<&'c Arg> {
    let own = command.get_arguments().find(|arg| is_meant(arg));
    own.or_else(|| command.get_subcommands().find_map(|verb| find(verb, is_meant)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory as _;

    #[track_caller]
    fn check(typed: &str, meant: &str) {
        let typed = typed.split(' ').map(OsString::from);
        let meant: Vec<_> = meant.split(' ').map(OsString::from).collect();
        assert_eq!(verb_first(&Cli::command(), typed), meant);
    }

    #[test]
    fn flags_and_their_values_move_behind_the_verb() {
        check("p --root my.node discover", "p discover --root my.node");
        check("p --root=run -o json discover", "p discover --root=run -o json");
        check("p --config run -v run", "p run --config run -v");
        check("p -ojson discover -h", "p discover -ojson -h");
        check("p -vo json demo", "p demo -vo json");
        check("p --splitboard config check FILE", "p config check --splitboard FILE");
        check("p probe --http off ready", "p probe ready --http off");
        check("p --help discover", "p discover --help");
    }

    #[test]
    fn flags_of_the_replaced_plugin_may_have_one_dash() {
        check("p -splitboard", "p run --splitboard");
        check("p -splitboard=false discover", "p discover --splitboard=false");
        check("p discover -usevolcano -reset_gpu=0", "p discover --usevolcano --reset_gpu=0");
        check("p -vo json demo", "p demo -vo json");
    }

    #[test]
    fn without_a_verb_run_is_meant() {
        check("p", "p run");
        check("p --http off", "p run --http off");
        check("p --help", "p --help");
        check("p -V", "p -V");
    }

    #[test]
    fn what_is_no_verb_stays_first_so_that_it_is_named() {
        check("p --root / discovr", "p discovr --root /");
        check("p --http off probe redy", "p probe redy --http off");
        check("p help discover", "p help discover");
        check("p ixml-agent -- --root", "p ixml-agent -- --root");
    }
}
