//! `tenured dev`: three replicas in one process, each on threads of its own, on loopback. For trying things out: one
//! machine is one point of failure, however many replicas it runs.

use std::{path::Path, thread, time::Duration};

use anyhow::{Context as _, anyhow};
use tenure_server::{
    config::{Addresses, Config, DEFAULT_SERVER_IDENTITY, DEFAULT_SNAPSHOT_LOG_BYTES, LogFormat, RaftTiming, ServiceLimits},
    descriptors::Descriptors,
};
use tokio::sync::{mpsc, watch};

use super::{
    args::Dev,
    private, probe,
    serve::{ClientThread, Sockets, host_name, runtime, seed, stop_signal},
};

const REPLICAS: u16 = 3;

pub(crate) fn run(args: &Dev) -> anyhow::Result<()> {
    args.logging.start(LogFormat::Text)?;
    // All ports first: a half-started cluster would be a riddle.
    let mut sockets = Vec::new();
    for k in 0..REPLICAS {
        let addresses = addresses(args.base_port, k);
        sockets.push((k, Sockets::bind(&addresses, |_| format!("from --base-port {}; is another `tenured dev` running?", args.base_port))?));
    }
    // Theirs are in it.
    private::warn_if_wider(&args.data_dir);
    let descriptors = Descriptors::raised().shared_by(REPLICAS.into());
    let (stop, stopping) = watch::channel(false);
    let (ended, mut endings) = mpsc::unbounded_channel();
    let mut replicas = Vec::new();
    for (k, sockets) in sockets {
        let (config, mut stopping, ended, seed) = (config(&args.data_dir, args.base_port, k), stopping.clone(), ended.clone(), seed()?);
        let replica = thread::Builder::new().name(format!("replica-{}", config.node_id)).spawn(move || {
            // Everything of a replica happens on its threads, so one span marks all its lines.
            let span = tracing::info_span!("replica", node = config.node_id);
            let node_id = config.node_id;
            let clients = ClientThread::start(format!("clients-{node_id}"), span.clone());
            let _span = span.entered();
            let result = clients.and_then(|clients| {
                runtime()?.block_on(async {
                    let stop = async move {
                        // An error means that the main thread is gone: stop as well.
                        let _ = stopping.wait_for(|stop| *stop).await;
                    };
                    tenure_server::run(config, sockets.surroundings(seed, descriptors, clients.handle())?, stop).await
                })
            });
            let _ = ended.send((node_id, result));
        })?;
        replicas.push(replica);
    }
    drop(ended);
    let outcome = runtime()?.block_on(async {
        let signal = stop_signal()?;
        let announcing = async {
            all_ready(args.base_port).await;
            announce(args);
            std::future::pending::<()>().await;
        };
        let early = tokio::select! {
            () = signal => None,
            () = announcing => None,
            ending = endings.recv() => ending,
        };
        stop.send_replace(true);
        let mut failure = early.map(|(node_id, result)| match result {
            Ok(()) => anyhow!("replica {node_id} stopped by itself"),
            Err(error) => error.context(format!("replica {node_id}")),
        });
        while let Some((node_id, result)) = endings.recv().await {
            if let Err(error) = result {
                failure.get_or_insert(error.context(format!("replica {node_id}")));
            }
        }
        failure.map_or(Ok(()), Err)
    });
    for replica in replicas {
        replica.join().map_err(|_| anyhow!("a replica's thread panicked"))?;
    }
    outcome.context("the cluster has stopped")
}

fn addresses(base_port: u16, k: u16) -> Addresses {
    let at = |offset| format!("127.0.0.1:{}", base_port + 10 * k + offset);
    Addresses { client: at(0), peer: at(1), http: at(2) }
}

fn config(data_dir: &Path, base_port: u16, k: u16) -> Config {
    Config {
        node_id: u64::from(k) + 1,
        data_dir: data_dir.join(format!("node-{}", k + 1)),
        advertise: addresses(base_port, k),
        initial_members: (0..REPLICAS).map(|k| (u64::from(k) + 1, addresses(base_port, k).peer)).collect(),
        bootstrap: true,
        raft: RaftTiming::default(),
        limits: ServiceLimits::default(),
        snapshot_log_bytes: DEFAULT_SNAPSHOT_LOG_BYTES,
        history: true,
        server_identity: Some(DEFAULT_SERVER_IDENTITY),
        host_name: host_name(),
    }
}

/// Asks as any prober would, so that what is announced is what holds.
async fn all_ready(base_port: u16) {
    for k in 0..REPLICAS {
        let http = addresses(base_port, k).http;
        loop {
            let addr = http.clone();
            let asked = tokio::task::spawn_blocking(move || probe::ready(&addr, Duration::from_secs(1))).await;
            if matches!(asked, Ok(Ok(()))) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn announce(args: &Dev) {
    let clients: Vec<String> = (0..REPLICAS).map(|k| addresses(args.base_port, k).client).collect();
    let https: Vec<String> = (0..REPLICAS).map(|k| addresses(args.base_port, k).http).collect();
    // With the standard ports, the command line finds the cluster by itself.
    let endpoints = if args.base_port == 7400 { String::new() } else { format!(" --endpoints {}", clients.join(",")) };
    println!(
        "\nTenure is ready: three replicas in this process, data in {}\n\
         \n  gRPC   {}\n  HTTP   {}   (/healthz /readyz /metrics)\n\
         \nTry:\n  tenure{endpoints} acquire my-lease --holder me --duration 60s\n  tenure{endpoints} get lease my-lease\n  tenure{endpoints} cluster status\n\
         \nCtrl-C stops it.",
        args.data_dir.display(),
        clients.join("  "),
        https.join("  "),
    );
}
