//! The testbed as a program, for the bench and for playing.

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use testbed::load::{self, Load};
use testbed::{Cluster, Etcd, KubeApi, Security};

#[derive(Parser)]
#[command(about = "Real etcd servers and data for them")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fill a server with data
    Load(LoadArguments),
    /// Start a server or a cluster, and stop it when stdin ends
    Cluster(ClusterArguments),
    /// Start an API server of Kubernetes for many tests, and stop it when stdin ends
    KubeApi,
}

#[derive(Args)]
struct LoadArguments {
    /// The server, without TLS
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:2379")]
    endpoint: String,
    /// Sum of the sizes of all values to write
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    bytes: u64,
    /// Size of a value in the mean
    #[arg(long, value_name = "BYTES", value_parser = bytes, default_value = "2K")]
    value_size: u64,
    /// How many of a hundred puts overwrite a key
    #[arg(long, value_name = "PERCENT", default_value_t = 30)]
    overwrites: u64,
    /// Connections that write at the same time
    #[arg(long, value_name = "NUMBER", default_value_t = 8)]
    connections: u64,
    /// Another seed writes other values
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
}

#[derive(Args)]
struct ClusterArguments {
    /// Version of etcd: 3.4 or 3.5
    #[arg(long, value_name = "VERSION", default_value = "3.5", value_parser = version)]
    version: Etcd,
    /// Number of members
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    members: usize,
    /// Speak http
    #[arg(long)]
    plain: bool,
    /// One more flag for every server
    #[arg(long = "server-flag", value_name = "FLAG", allow_hyphen_values = true)]
    server_flags: Vec<String>,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Load(arguments) => load(&arguments),
        Command::Cluster(arguments) => cluster(arguments),
        Command::KubeApi => kube_api(),
    }
}

fn load(arguments: &LoadArguments) -> Result<()> {
    let load = Load {
        bytes: arguments.bytes,
        value_bytes: arguments.value_size,
        overwrites_percent: arguments.overwrites,
        connections: arguments.connections,
        seed: arguments.seed,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let written = runtime.block_on(load::write(&arguments.endpoint, &load))?;
    println!("{} bytes in {} puts; {} deletes", written.bytes, written.puts, written.deletes);
    Ok(())
}

/// Prints the connection flags on one line, then waits for the end of stdin.
fn cluster(arguments: ClusterArguments) -> Result<()> {
    let security = if arguments.plain { Security::Plain } else { Security::Tls };
    let mut builder =
        Cluster::builder(arguments.version).members(arguments.members).security(security);
    for flag in arguments.server_flags {
        builder = builder.flag(flag);
    }
    let cluster = builder.start();
    println!("{}", cluster.connection_flags().join(" "));
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

/// Prints its folder on one line, then waits for the end of stdin.
fn kube_api() -> Result<()> {
    let server = KubeApi::start();
    let folder = server.folder().context("LIFEBOAT_TEST_KUBECONFIG names one that runs already")?;
    println!("{}", folder.display());
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

fn version(text: &str) -> Result<Etcd, String> {
    match text {
        "3.4" => Ok(Etcd::V3_4),
        "3.5" => Ok(Etcd::V3_5),
        _ => Err("known are 3.4 and 3.5".to_owned()),
    }
}

/// A number of bytes, with K, M or G for powers of 1024.
fn bytes(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'K')) => (&text[..at], 1 << 10),
        Some((at, 'M')) => (&text[..at], 1 << 20),
        Some((at, 'G')) => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    let number: u64 = digits.parse().map_err(|error| format!("{text}: {error}"))?;
    number.checked_mul(unit).ok_or_else(|| format!("{text} is too large"))
}
