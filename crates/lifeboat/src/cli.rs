//! The command line.

use crate::{
    backups,
    commands::SnapshotCommand,
    connection::{ConnectionArgs, write_out},
    crds, live, operator,
    output::Format,
    recover::RecoverCommand,
    report::Failure,
    serve, volume,
};
use clap::{
    Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, error::ErrorKind,
};
use std::path::Path;

/// Back up etcd clusters and bring them back
///
/// Called through a link named `etcdctl` or `etcdutl`, it takes that tool's command line for the
/// commands below. Settings come from flags, then LIFEBOAT_* variables, then ETCDCTL_* variables, then
/// the config file.
///
/// Exit codes: 0 success; 1 failed; 2 wrong usage; 3 damage found, or members differ; 4 the cluster or the
/// store cannot be reached; 5 refused, as it would overwrite or expose something; 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "lifeboat", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,

    /// How results are printed [default: simple] [env: LIFEBOAT_WRITE_OUT, ETCDCTL_WRITE_OUT]
    #[arg(short = 'w', long = "write-out", global = true, value_enum, value_name = "FORMAT")]
    pub(crate) write_out: Option<Format>,

    /// Accepted for scripts written for etcdctl; failures are told in full anyway
    #[arg(long, global = true, hide = true)]
    debug: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    #[command(subcommand)]
    Member(live::MemberCommand),
    Endpoint(live::EndpointArgs),
    ClusterHealth(live::ClusterHealthArgs),
    Backup(backups::BackupArgs),
    List(backups::ListArgs),
    Show(backups::ShowArgs),
    Verify(backups::VerifyArgs),
    Restore(backups::RestoreArgs),
    Prune(backups::PruneArgs),
    Keep(backups::KeepArgs),
    Copy(backups::CopyArgs),
    Rekey(backups::RekeyArgs),
    #[command(subcommand)]
    Recover(RecoverCommand),
    Serve(serve::ServeArgs),
    #[command(subcommand)]
    Config(serve::ConfigCommand),
    Operator(operator::OperatorArgs),
    #[command(hide = true)]
    BackupJob(operator::BackupJobArgs),
    #[command(hide = true)]
    Volume(volume::VolumeArgs),
    Crds(crds::CrdsArgs),
}

/// The etcd whose way of counting and printing is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EtcdVersion {
    /// Counts and prints as etcd 3.4
    #[value(name = "3.4")]
    V3_4,
    /// As etcd 3.5
    #[value(name = "3.5")]
    V3_5,
    /// As etcd 3.6
    #[value(name = "3.6")]
    V3_6,
}

/// The name that the program was called by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    /// `lifeboat`, or any other name.
    Lifeboat,
    /// `etcdctl` or `etcdutl`: what these print is what scripts expect.
    EtcdTool,
}

impl Tool {
    pub(crate) fn of(program: &Path) -> Self {
        match program.file_name().and_then(std::ffi::OsStr::to_str) {
            Some("etcdctl" | "etcdutl") => Self::EtcdTool,
            _ => Self::Lifeboat,
        }
    }
}

/// The commands, and those below them, that ask no etcd whatever its flags say.
const OFFLINE: [&str; 23] = [
    "snapshot status",
    "snapshot verify",
    "snapshot hashkv",
    "snapshot restore",
    "list",
    "show",
    "verify",
    "restore",
    "prune",
    "keep",
    "copy",
    "rekey",
    "recover run",
    "recover rollback",
    "recover commit",
    "recover status",
    "recover adopt",
    "serve",
    "config",
    "operator",
    "backup-job",
    "volume",
    "crds",
];

/// The commands below `command`; the help of those that ask no etcd does not speak of `flags`. They take them all the
/// same, as scripts give them to any.
fn hiding(flags: &[Arg], command: clap::Command, path: &str) -> clap::Command {
    command.mut_subcommands(|below| {
        let path = format!("{path} {}", below.get_name());
        match OFFLINE.contains(&path.trim_start()) {
            true => below.args(flags),
            false => hiding(flags, below, &path),
        }
    })
}

/// What every command may need to know.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) tool: Tool,
    pub(crate) format: Format,
    pub(crate) connection: ConnectionArgs,
}

impl Context {
    /// Runs `future` to its end. One thread moves all messages, as handing them between threads would
    /// cost more than it saves; what blocks has threads of its own, and is not waited for: a name
    /// server or a reader may be silent for ever.
    pub(crate) fn block_on<T>(
        &self,
        future: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let result = runtime.block_on(future);
        runtime.shutdown_background();
        result
    }
}

impl Cli {
    /// The commands with their flags, each with help for those that mean something to it.
    pub(crate) fn commands() -> clap::Command {
        let connection = ConnectionArgs::augment_args(clap::Command::new("connection"));
        let hidden: Vec<Arg> =
            connection.get_arguments().map(|flag| flag.clone().hide(true)).collect();
        hiding(&hidden, Self::command(), "")
    }

    /// Reads the arguments. If they are wrong, or ask for help, says so and ends the program.
    pub(crate) fn parse_for(tool: Tool) -> Self {
        let mut commands = Self::commands();
        let parsed = commands.try_get_matches_from_mut(std::env::args_os());
        let parsed = parsed.and_then(|matches| Self::from_arg_matches(&matches));
        parsed.map_err(|error| error.format(&mut commands)).unwrap_or_else(|error| {
            // A failure to print leaves nothing better to do than to end.
            let _ = error.print();
            if tool == Tool::EtcdTool && error.kind() == ErrorKind::InvalidSubcommand {
                say!(
                    "help: this is lifeboat under the name of an etcd tool; it stands in for \
                     snapshot, member list, endpoint and cluster-health only"
                );
            }
            std::process::exit(error.exit_code())
        })
    }

    pub(crate) fn run(self, tool: Tool) -> Result<(), Failure> {
        let format = write_out(self.write_out)?;
        let context = Context { tool, format, connection: self.connection };
        match self.command {
            Command::Snapshot(command) => command.run(&context),
            Command::Member(command) => command.run(&context),
            Command::Endpoint(command) => command.run(&context),
            Command::ClusterHealth(args) => args.run(&context),
            Command::Backup(args) => args.run(&context),
            Command::List(args) => args.run(&context),
            Command::Show(args) => args.run(&context),
            Command::Verify(args) => args.run(&context),
            Command::Restore(args) => args.run(&context),
            Command::Prune(args) => args.run(&context),
            Command::Keep(args) => args.run(&context),
            Command::Copy(args) => args.run(&context),
            Command::Rekey(args) => args.run(&context),
            Command::Recover(command) => command.run(&context),
            Command::Serve(args) => args.run(),
            Command::Config(command) => command.run(&context),
            Command::Operator(args) => args.run(),
            Command::BackupJob(args) => args.run(),
            Command::Volume(args) => args.run(&context),
            Command::Crds(args) => args.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(command: &clap::Command, path: &str, found: &mut Vec<(String, clap::Command)>) {
        for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
            let path = format!("{path} {}", below.get_name()).trim_start().to_owned();
            match below.has_subcommands() {
                true => leaves(below, &path, found),
                false => found.push((path, below.clone())),
            }
        }
    }

    /// Every command that can be run, with the flags that it has from above.
    fn built() -> Vec<(String, clap::Command)> {
        let mut commands = Cli::commands();
        commands.build();
        let mut found = Vec::new();
        leaves(&commands, "", &mut found);
        found
    }

    #[test]
    fn help_speaks_of_the_connection_only_where_there_is_one() {
        let connected: Vec<_> = built()
            .into_iter()
            .filter(|(_, command)| {
                !command.is_hide_set()
                    && command.clone().render_long_help().to_string().contains("--cacert")
            })
            .map(|(path, _)| path)
            .collect();
        let expected = [
            "snapshot save",
            "member list",
            "endpoint status",
            "endpoint health",
            "endpoint hashkv",
            "cluster-health",
            "backup",
            "recover plan",
            "recover replace",
        ];
        assert_eq!(connected, expected);
    }

    #[test]
    fn flags_of_the_connection_are_taken_by_any_command_at_any_place() {
        for line in [
            ["lifeboat", "--endpoints", "a:1", "list"],
            ["lifeboat", "list", "--endpoints", "a:1"],
            ["lifeboat", "backup", "--endpoints", "a:1"],
        ] {
            let matches = Cli::commands().try_get_matches_from(line).unwrap();
            let cli = Cli::from_arg_matches(&matches).unwrap();
            assert!(cli.connection.names_endpoints(), "{line:?}");
        }
        let line = ["etcdctl", "snapshot", "status", "x.db", "--cacert", "ca", "-w", "json"];
        let matches = Cli::commands().try_get_matches_from(line).unwrap();
        assert_eq!(Cli::from_arg_matches(&matches).unwrap().write_out, Some(Format::Json));
    }

    #[test]
    fn help_that_is_printed_as_it_stands_fits_a_terminal_of_eighty_columns() {
        let mut with_examples = 0;
        for (path, command) in built().iter() {
            let about = command.get_long_about().map(ToString::to_string).unwrap_or_default();
            if !about.contains("\nExamples:") {
                continue; // clap breaks its lines
            }
            with_examples += 1;
            for line in about.lines() {
                assert!(line.chars().count() <= 80, "{path}: {line}");
            }
        }
        assert_eq!(with_examples, 11);
    }
}
