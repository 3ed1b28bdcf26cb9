//! The connection flags: etcdctl's, with their environment variables.
//!
//! A setting comes from the flag, else from `LIFEBOAT_*`, else from `ETCDCTL_*`. etcdctl refuses to
//! run when flag and variable are both there; here the flag wins. An empty variable counts as unset.

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::ValueEnum;
use etcd_live::{ConnectOptions, Credentials, Endpoint, Identity};

use crate::output::{Format, duration};
use crate::report::{Exit, Failure};

/// Set on each argument: a heading of the whole struct would go on to the arguments after it.
const HEADING: &str = "Connection";

const DEFAULT_ENDPOINT: &str = "127.0.0.1:2379";

/// How to reach the cluster and who we are
#[derive(Clone, clap::Args)]
pub(crate) struct ConnectionArgs {
    /// Members to talk to, separated by commas [default: 127.0.0.1:2379] [env: LIFEBOAT_ENDPOINTS, ETCDCTL_ENDPOINTS]
    ///
    /// HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix:///PATH. Without a scheme, TLS is
    /// spoken if a certificate or an authority is given. Where several are given and one answer is
    /// enough, the best member is taken.
    ///
    /// A flag comes before the variables that stand beside it, and of these the first that is there
    /// and not empty counts.
    #[arg(
        long,
        help_heading = HEADING,
        alias = "endpoint",
        global = true,
        value_name = "ENDPOINTS",
        value_delimiter = ','
    )]
    endpoints: Vec<String>,

    /// Trust servers whose certificate this authority signed (PEM) [env: LIFEBOAT_CACERT, ETCDCTL_CACERT]
    ///
    /// Without it, the authorities that the system trusts.
    #[arg(long, help_heading = HEADING, alias = "ca-file", global = true, value_name = "FILE")]
    cacert: Option<String>,

    /// Client certificate (PEM), together with --key [env: LIFEBOAT_CERT, ETCDCTL_CERT]
    #[arg(long, help_heading = HEADING, alias = "cert-file", global = true, value_name = "FILE")]
    cert: Option<String>,

    /// Private key of the client certificate (PEM) [env: LIFEBOAT_KEY, ETCDCTL_KEY]
    #[arg(long, help_heading = HEADING, alias = "key-file", global = true, value_name = "FILE")]
    key: Option<String>,

    /// User, as NAME or NAME:PASSWORD [env: LIFEBOAT_USER, ETCDCTL_USER]
    ///
    /// A password is asked for on the terminal if there is none. Do not write it on a command line
    /// that others can see: put it into the variable of --password.
    #[arg(long, help_heading = HEADING, global = true, value_name = "NAME")]
    user: Option<String>,

    /// Password of --user [env: LIFEBOAT_PASSWORD, ETCDCTL_PASSWORD]
    #[arg(long, help_heading = HEADING, global = true, value_name = "PASSWORD")]
    password: Option<String>,

    /// Longest time to connect to a member, such as 5s or 500ms [default: 2s] [env: LIFEBOAT_DIAL_TIMEOUT, ETCDCTL_DIAL_TIMEOUT]
    #[arg(long, help_heading = HEADING, global = true, value_name = "DURATION")]
    dial_timeout: Option<String>,

    /// Longest time for a short request [default: 5s] [env: LIFEBOAT_COMMAND_TIMEOUT, ETCDCTL_COMMAND_TIMEOUT]
    #[arg(long, help_heading = HEADING, global = true, value_name = "DURATION")]
    command_timeout: Option<String>,

    /// Silence after which a busy connection is tested [default: 10s, the least] [env: LIFEBOAT_KEEPALIVE_TIME, ETCDCTL_KEEPALIVE_TIME]
    #[arg(long, help_heading = HEADING, global = true, value_name = "DURATION")]
    keepalive_time: Option<String>,

    /// Longest time for the answer to that test [default: 6s] [env: LIFEBOAT_KEEPALIVE_TIMEOUT, ETCDCTL_KEEPALIVE_TIMEOUT]
    #[arg(long, help_heading = HEADING, global = true, value_name = "DURATION")]
    keepalive_timeout: Option<String>,

    /// Speak without TLS to endpoints that name no scheme [default: true] [env: LIFEBOAT_INSECURE_TRANSPORT, ETCDCTL_INSECURE_TRANSPORT]
    ///
    /// With a certificate or an authority given, TLS is spoken all the same.
    #[arg(
        long,
        help_heading = HEADING,
        global = true,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    insecure_transport: Option<String>,

    /// Accept any server certificate; for tests only [env: LIFEBOAT_INSECURE_SKIP_TLS_VERIFY, ETCDCTL_INSECURE_SKIP_TLS_VERIFY]
    #[arg(
        long,
        help_heading = HEADING,
        global = true,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    insecure_skip_tls_verify: Option<String>,

    /// Not supported: find the members by DNS
    #[arg(long, short = 'd', global = true, value_name = "DOMAIN", hide = true)]
    discovery_srv: Option<String>,
}

/// Without the password.
impl std::fmt::Debug for ConnectionArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionArgs").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

impl ConnectionArgs {
    /// Whether a flag names endpoints.
    pub(crate) fn names_endpoints(&self) -> bool {
        !self.endpoints.is_empty()
    }

    /// The endpoints that were given, or etcd's usual one.
    pub(crate) fn endpoints(&self) -> Result<Vec<Endpoint>, Failure> {
        Settings::of_process(self).endpoints()
    }

    /// Everything else. May ask for a password on the terminal.
    pub(crate) fn options(&self) -> Result<ConnectOptions, Failure> {
        Settings::of_process(self).options(&ask_password)
    }
}

/// The flags over an environment, which tests can make up.
struct Settings<'a> {
    args: &'a ConnectionArgs,
    environment: &'a dyn Fn(&str) -> Option<String>,
}

/// A value and where it was found, for messages.
struct Setting {
    value: String,
    from: String,
}

impl Setting {
    fn refused(&self, why: impl std::fmt::Display) -> Failure {
        usage(format!("{}: {why}", self.from), "see `lifeboat help` for how to write it")
    }
}

/// The first of the variables `LIFEBOAT_FLAG` and `ETCDCTL_FLAG` that is not empty.
fn variable(flag: &str, environment: &dyn Fn(&str) -> Option<String>) -> Option<Setting> {
    let name = flag.to_uppercase().replace('-', "_");
    ["LIFEBOAT", "ETCDCTL"].iter().find_map(|prefix| {
        let from = format!("{prefix}_{name}");
        let value = environment(&from).filter(|value| !value.is_empty())?;
        Some(Setting { value, from })
    })
}

/// The form of results: as the flag says, else a variable, else the default.
pub(crate) fn write_out(given: Option<Format>) -> Result<Format, Failure> {
    write_out_in(given, &|name| std::env::var(name).ok())
}

fn write_out_in(
    given: Option<Format>,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Format, Failure> {
    if let Some(format) = given {
        return Ok(format);
    }
    match variable("write-out", environment) {
        None => Ok(Format::default()),
        Some(setting) => Format::from_str(&setting.value, false)
            .map_err(|_| setting.refused(format_args!("there is no format {:?}", setting.value))),
    }
}

impl<'a> Settings<'a> {
    fn of_process(args: &'a ConnectionArgs) -> Self {
        Self { args, environment: &|name| std::env::var(name).ok() }
    }

    /// The value of `--flag`, else of the first variable `LIFEBOAT_FLAG` or `ETCDCTL_FLAG` that is
    /// not empty.
    fn get(&self, flag: &str, given: Option<&String>) -> Option<Setting> {
        if let Some(value) = given {
            return Some(Setting { value: value.clone(), from: format!("--{flag}") });
        }
        variable(flag, self.environment)
    }

    fn endpoints(&self) -> Result<Vec<Endpoint>, Failure> {
        let given = match self.args.endpoints.as_slice() {
            [] => None,
            endpoints => Some(endpoints.join(",")),
        };
        let setting = self.get("endpoints", given.as_ref()).unwrap_or_else(|| Setting {
            value: DEFAULT_ENDPOINT.to_owned(),
            from: "the default".to_owned(),
        });
        let parse = |text: &str| {
            text.parse().map_err(|error: etcd_live::EndpointError| {
                usage(format!("{}: {error}", setting.from), error.remedy())
            })
        };
        setting.value.split(',').map(parse).collect()
    }

    fn options(&self, ask: &dyn Fn(&str) -> io::Result<String>) -> Result<ConnectOptions, Failure> {
        if let Some(setting) = self.get("discovery-srv", self.args.discovery_srv.as_ref()) {
            let what = format!("{}: finding members by DNS is not supported", setting.from);
            return Err(usage(what, "list the members with --endpoints"));
        }
        let args = self.args;
        let defaults = ConnectOptions::default();
        let duration = |flag: &str, given: &Option<String>, default| {
            self.get(flag, given.as_ref()).map_or(Ok(default), |setting| parse_duration(&setting))
        };
        let mut options = ConnectOptions {
            credentials: self.credentials(ask)?,
            dial_timeout: duration("dial-timeout", &args.dial_timeout, defaults.dial_timeout)?,
            command_timeout: duration(
                "command-timeout",
                &args.command_timeout,
                defaults.command_timeout,
            )?,
            keepalive_time: duration(
                "keepalive-time",
                &args.keepalive_time,
                defaults.keepalive_time,
            )?,
            keepalive_timeout: duration(
                "keepalive-timeout",
                &args.keepalive_timeout,
                defaults.keepalive_timeout,
            )?,
            insecure_transport: self.flag(
                "insecure-transport",
                args.insecure_transport.as_ref(),
                defaults.insecure_transport,
            )?,
            ..defaults
        };
        options.tls.ca = self.file("cacert", "ca-file", args.cacert.as_ref())?.map(Into::into);
        options.tls.identity = self.identity()?;
        options.tls.skip_verify = self.flag(
            "insecure-skip-tls-verify",
            args.insecure_skip_tls_verify.as_ref(),
            options.tls.skip_verify,
        )?;
        Ok(options)
    }

    fn identity(&self) -> Result<Option<Identity>, Failure> {
        let cert = self.file("cert", "cert-file", self.args.cert.as_ref())?;
        let key = self.file("key", "key-file", self.args.key.as_ref())?;
        match (cert, key) {
            (None, None) => Ok(None),
            (Some(cert), Some(key)) => Ok(Some(Identity { cert: cert.into(), key: key.into() })),
            (Some(_), None) => Err(usage("a client certificate needs its key", "give --key too")),
            (None, Some(_)) => Err(usage("a key needs its certificate", "give --cert too")),
        }
    }

    /// A file, under its name of today or that of etcd's version 2.
    fn file(
        &self,
        flag: &str,
        old: &str,
        given: Option<&String>,
    ) -> Result<Option<String>, Failure> {
        match self.get(flag, given).or_else(|| self.get(old, None)) {
            Some(setting) if setting.value.is_empty() => Err(setting.refused("it is empty")),
            setting => Ok(setting.map(|setting| setting.value)),
        }
    }

    fn flag(&self, flag: &str, given: Option<&String>, default: bool) -> Result<bool, Failure> {
        let Some(setting) = self.get(flag, given) else { return Ok(default) };
        match setting.value.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            other => Err(setting.refused(format_args!("{other:?} is neither true nor false"))),
        }
    }

    /// As etcdctl: a password of its own, else the part of the user behind the colon, else asked for.
    fn credentials(
        &self,
        ask: &dyn Fn(&str) -> io::Result<String>,
    ) -> Result<Option<Credentials>, Failure> {
        let user = self.get("user", self.args.user.as_ref()).map(|setting| setting.value);
        let password = self.get("password", self.args.password.as_ref());
        let password = password.map(|setting| setting.value).filter(|value| !value.is_empty());
        let Some(user) = user.filter(|user| !user.is_empty()) else { return Ok(None) };
        let (user, password) = match (password, user.split_once(':')) {
            (Some(password), _) => (user, password),
            (None, Some((user, password))) => (user.to_owned(), password.to_owned()),
            (None, None) => {
                let password = ask(&user).map_err(|error| Failure {
                    exit: Exit::Usage,
                    error: format!("no password for the user {user:?}: {error}").into(),
                    help: Some("put it into the variable LIFEBOAT_PASSWORD".to_owned()),
                })?;
                (user, password)
            }
        };
        Ok(Some(Credentials { user, password }))
    }
}

fn parse_duration(setting: &Setting) -> Result<Duration, Failure> {
    duration::parse(&setting.value).map_err(|error| setting.refused(error))
}

fn usage(message: impl Into<String>, help: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, message, help)
}

/// Asks a person; a script gets an error instead of waiting for ever.
fn ask_password(user: &str) -> io::Result<String> {
    if !io::stdin().is_terminal() {
        return Err(io::Error::other("there is no terminal to ask for it"));
    }
    rpassword::prompt_password(format!("Password of {user}: "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        connection: ConnectionArgs,
    }

    /// Resolves a command line over an environment of `NAME=value`.
    fn settings<T>(
        line: &[&str],
        environment: &[&str],
        read: impl Fn(&Settings<'_>) -> Result<T, Failure>,
    ) -> Result<T, String> {
        let line = std::iter::once("lifeboat").chain(line.iter().copied());
        let args = Cli::try_parse_from(line).unwrap().connection;
        let lookup = |name: &str| {
            let found =
                environment.iter().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            found.map(str::to_owned)
        };
        read(&Settings { args: &args, environment: &lookup }).map_err(|f| f.error.to_string())
    }

    fn options(line: &[&str], environment: &[&str]) -> Result<ConnectOptions, String> {
        let no_terminal = |_: &str| Err(io::Error::other("no terminal"));
        settings(line, environment, |settings| settings.options(&no_terminal))
    }

    fn endpoints(line: &[&str], environment: &[&str]) -> Result<Vec<String>, String> {
        let endpoints = settings(line, environment, |settings| settings.endpoints())?;
        Ok(endpoints.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_flag_wins_over_both_variables_and_ours_over_etcdctls() {
        let both = ["ETCDCTL_ENDPOINTS=c:3", "LIFEBOAT_ENDPOINTS=b:2,https://b:3"];
        assert_eq!(endpoints(&["--endpoints", "a:1"], &both), Ok(vec!["a:1".to_owned()]));
        assert_eq!(endpoints(&[], &both), Ok(vec!["b:2".to_owned(), "https://b:3".to_owned()]));
        assert_eq!(endpoints(&[], &both[..1]), Ok(vec!["c:3".to_owned()]));
        assert_eq!(endpoints(&[], &["ETCDCTL_ENDPOINTS="]), Ok(vec![DEFAULT_ENDPOINT.to_owned()]));
    }

    #[test]
    fn the_form_of_results_comes_from_a_variable_too_and_an_empty_one_is_none() {
        let write_out = |given, environment: &[&str]| {
            let lookup = |name: &str| {
                let value =
                    |pair: &&str| pair.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
                environment.iter().find_map(value)
            };
            write_out_in(given, &lookup).map_err(|failure| failure.error.to_string())
        };
        let both = ["ETCDCTL_WRITE_OUT=table", "LIFEBOAT_WRITE_OUT=json"];
        assert_eq!(write_out(Some(Format::Fields), &both), Ok(Format::Fields));
        assert_eq!(write_out(None, &both), Ok(Format::Json));
        assert_eq!(write_out(None, &["LIFEBOAT_WRITE_OUT=", both[0]]), Ok(Format::Table));
        assert_eq!(write_out(None, &["ETCDCTL_WRITE_OUT="]), Ok(Format::Simple));
        let error = write_out(None, &["LIFEBOAT_WRITE_OUT=xml"]).unwrap_err();
        assert_eq!(error, "LIFEBOAT_WRITE_OUT: there is no format \"xml\"");
    }

    #[test]
    fn the_help_of_every_flag_names_both_of_its_variables() {
        let command = crate::cli::Cli::command();
        let connection = Cli::command();
        let of_connection = connection.get_arguments().filter(|flag| !flag.is_hide_set());
        let write_out = command.get_arguments().filter(|flag| flag.get_id() == "write_out");
        let mut flags = 0;
        for flag in of_connection.chain(write_out) {
            let name = flag.get_id().as_str().to_uppercase();
            let help = flag.get_help().unwrap().to_string();
            assert!(help.contains(&format!("[env: LIFEBOAT_{name}, ETCDCTL_{name}]")), "{help}");
            flags += 1;
        }
        assert_eq!(flags, 13);
    }

    #[test]
    fn endpoints_may_be_repeated_and_separated_by_commas() {
        let line = ["--endpoints=a:1,b:2", "--endpoints", "c:3"];
        assert_eq!(endpoints(&line, &[]).unwrap(), ["a:1", "b:2", "c:3"]);
    }

    #[test]
    fn the_old_spellings_of_the_certificates_are_taken() {
        let line = ["--ca-file=ca", "--cert-file=cert", "--key-file=key"];
        for options in [
            options(&line, &[]),
            options(&[], &["ETCDCTL_CA_FILE=ca", "ETCDCTL_CERT_FILE=cert", "ETCDCTL_KEY_FILE=key"]),
            options(&["--cacert=ca"], &["ETCDCTL_CERT=cert", "LIFEBOAT_KEY=key"]),
        ] {
            let tls = options.unwrap().tls;
            assert_eq!(tls.ca, Some("ca".into()));
            assert_eq!(tls.identity, Some(Identity { cert: "cert".into(), key: "key".into() }));
        }
    }

    #[test]
    fn half_of_a_client_certificate_is_refused() {
        assert_eq!(options(&["--cert=c"], &[]).unwrap_err(), "a client certificate needs its key");
        assert_eq!(options(&[], &["ETCDCTL_KEY=k"]).unwrap_err(), "a key needs its certificate");
    }

    #[test]
    fn a_flag_without_a_value_is_true_and_a_value_needs_an_equals_sign() {
        assert!(options(&["--insecure-skip-tls-verify"], &[]).unwrap().tls.skip_verify);
        assert!(!options(&["--insecure-transport=false"], &[]).unwrap().insecure_transport);
        assert!(!options(&[], &["ETCDCTL_INSECURE_TRANSPORT=0"]).unwrap().insecure_transport);
        assert_eq!(
            options(&["--insecure-transport=no"], &[]).unwrap_err(),
            "--insecure-transport: \"no\" is neither true nor false"
        );
    }

    #[test]
    fn durations_are_gos_and_a_wrong_one_names_where_it_came_from() {
        let line = ["--dial-timeout=1m30s", "--command-timeout=500ms"];
        let options_read = options(&line, &["ETCDCTL_KEEPALIVE_TIME=20s"]).unwrap();
        assert_eq!(options_read.dial_timeout, Duration::from_secs(90));
        assert_eq!(options_read.command_timeout, Duration::from_millis(500));
        assert_eq!(options_read.keepalive_time, Duration::from_secs(20));
        let error = options(&[], &["ETCDCTL_DIAL_TIMEOUT=5"]).unwrap_err();
        assert!(error.starts_with("ETCDCTL_DIAL_TIMEOUT: not a duration: \"5\""), "{error}");
    }

    #[test]
    fn the_password_comes_from_its_own_setting_or_from_behind_the_colon() {
        for (line, environment, user, password) in [
            (&["--user=root:a:b"][..], &[][..], "root", "a:b"),
            (&["--user=root", "--password=p"], &[], "root", "p"),
            (&["--user=ro:ot"], &["ETCDCTL_PASSWORD=p"], "ro:ot", "p"),
            (&[], &["ETCDCTL_USER=root:p"], "root", "p"),
        ] {
            let found = options(line, environment).unwrap().credentials.unwrap();
            assert_eq!((found.user.as_str(), found.password.as_str()), (user, password));
        }
        assert_eq!(options(&["--password=p"], &[]).unwrap().credentials, None);
    }

    #[test]
    fn a_missing_password_is_asked_for_and_a_script_is_told() {
        let error = options(&["--user=root"], &[]).unwrap_err();
        assert_eq!(error, "no password for the user \"root\": no terminal");

        let asked = |user: &str| Ok(format!("typed for {user}"));
        let found = settings(&["--user=root"], &[], |settings| settings.options(&asked)).unwrap();
        assert_eq!(found.credentials.unwrap().password, "typed for root");
    }

    #[test]
    fn discovery_by_dns_is_refused_and_not_ignored() {
        let error = options(&["--discovery-srv=example.org"], &[]).unwrap_err();
        assert_eq!(error, "--discovery-srv: finding members by DNS is not supported");
        assert!(options(&[], &["ETCDCTL_DISCOVERY_SRV=example.org"]).is_err());
    }
}
