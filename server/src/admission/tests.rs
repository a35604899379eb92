//! Ports against crowds, against those who say nothing and those who read nothing.

use std::{io, sync::Arc};

use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::*;
use crate::net::{Conn, Incoming};

const WITHIN: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(300);

fn rules(connections: usize, per_source: usize) -> Rules {
    Rules {
        port: "test",
        connections,
        per_source,
        first_bytes: (4, WITHIN),
        write_within: WITHIN,
        idle: Some(IDLE),
        busy: Busy::WithCalls,
        unfinished: Budget { connection: 9, source: 9, port: 9 },
    }
}

/// The client's end, and the port's if it was let in.
async fn connect(port: &Arc<Port>, from: &str) -> (DuplexStream, Option<Admitted>) {
    let (near, far) = tokio::io::duplex(64);
    (near, port.admit(Conn::new(far, from)).await)
}

async fn ended(conn: &mut Admitted) -> io::ErrorKind {
    let mut bytes = [0; 8];
    loop {
        match conn.read(&mut bytes).await {
            Ok(0) => return io::ErrorKind::UnexpectedEof,
            Ok(_) => {}
            Err(error) => return error.kind(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn silent_connection_is_closed_and_one_that_speaks_is_not() {
    let port = Port::new(rules(2, 2));
    let (_near, silent) = connect(&port, "a:1").await;
    let (mut near, speaking) = connect(&port, "a:2").await;
    near.write_all(b"PRI ").await.unwrap();
    let mut speaking = speaking.expect("let in");
    speaking.read_exact(&mut [0; 4]).await.unwrap();
    assert_eq!(ended(&mut silent.expect("let in")).await, io::ErrorKind::TimedOut);
    let quiet = tokio::time::timeout(WITHIN * 3, speaking.read(&mut [0; 8])).await;
    assert!(quiet.is_err(), "after its first bytes it has more time");
}

#[tokio::test(start_paused = true)]
async fn connection_without_a_call_ends_after_a_while_and_one_with_a_call_does_not() {
    let port = Port::new(rules(2, 2));
    let (mut near, conn) = connect(&port, "a:1").await;
    let mut conn = conn.expect("let in");
    let call = tonic::transport::server::Connected::connect_info(&conn).begin_call();
    near.write_all(b"PRI ").await.unwrap();
    conn.read_exact(&mut [0; 4]).await.unwrap();
    assert!(tokio::time::timeout(IDLE * 5, ended(&mut conn)).await.is_err(), "it has a call");
    drop(call);
    let over = tokio::time::timeout(IDLE * 3, ended(&mut conn)).await;
    assert_eq!(over.expect("idle for long enough"), io::ErrorKind::UnexpectedEof);
}

#[tokio::test(start_paused = true)]
async fn whoever_reads_nothing_is_hung_up_on() {
    let port = Port::new(rules(1, 1));
    let (_near, conn) = connect(&port, "a:1").await;
    let error = conn.expect("let in").write_all(&[0; 1 << 10]).await.expect_err("64 bytes fit");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn newcomer_takes_the_place_that_was_idle_longest_of_whoever_has_most() {
    let port = Port::new(rules(4, 4));
    let (mut near, mut crowd) = (Vec::new(), Vec::new());
    for number in 0..3 {
        let (client, conn) = connect(&port, &format!("crowd:{number}")).await;
        near.push(client);
        crowd.push(conn.expect("room"));
    }
    let (_near, alone) = connect(&port, "alone:1").await;
    let mut alone = alone.expect("room");
    // The oldest of the crowd is answered just now, so it is the next that has to go.
    let _call = tonic::transport::server::Connected::connect_info(&crowd[0]).begin_call();
    let (_near, newcomer) = connect(&port, "new:1").await;
    let mut newcomer = newcomer.expect("an idle one goes");
    assert_eq!(ended(&mut crowd[1]).await, io::ErrorKind::ConnectionAborted);
    for conn in [&mut alone, &mut newcomer] {
        let still_open = futures::poll!(std::pin::pin!(conn.read(&mut [0; 1])));
        assert!(still_open.is_pending());
    }
}

#[tokio::test]
async fn one_source_has_its_bound_and_others_get_in() {
    let port = Port::new(rules(10, 2));
    let mut held = Vec::new();
    for number in 0..2 {
        let conn = connect(&port, &format!("10.0.0.2:{number}")).await.1.expect("room");
        held.push((tonic::transport::server::Connected::connect_info(&conn).begin_call(), conn));
    }
    let (mut near, refused) = connect(&port, "10.0.0.2:9").await;
    assert!(refused.is_none(), "its two are in use");
    assert_eq!(near.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(connect(&port, "10.0.0.3:9").await.1.is_some());
    let (call, _conn) = held.pop().expect("two");
    drop(call);
    assert!(connect(&port, "10.0.0.2:10").await.1.is_some(), "in the place of its own idle one");
}

#[tokio::test]
async fn connections_are_counted_and_give_their_places_back() {
    let port = Port::new(rules(2, 2));
    let (near, far): (Vec<_>, Vec<_>) = (0..3).map(|_| tokio::io::duplex(64)).unzip();
    let incoming: Incoming = Box::pin(futures::stream::iter(far.into_iter().map(|io| Ok(Conn::new(io, "test")))));
    let mut guarded = port.guard(incoming);
    let first = guarded.next().await.expect("one").expect("accepted");
    let second = guarded.next().await.expect("two").expect("accepted");
    assert_eq!(port.open(), 2);
    drop(first);
    let third = guarded.next().await.expect("three").expect("accepted");
    assert_eq!(port.open(), 2);
    drop((second, third));
    assert_eq!(port.open(), 0);
    assert!(guarded.next().await.is_none());
    drop(near);
}

#[tokio::test]
async fn port_that_closes_ends_all_and_lets_nobody_in() {
    let port = Port::new(rules(2, 2));
    let (_near, conn) = connect(&port, "a:1").await;
    port.end_all();
    assert_eq!(ended(&mut conn.expect("let in")).await, io::ErrorKind::ConnectionAborted);
    assert!(connect(&port, "a:2").await.1.is_none());
}
