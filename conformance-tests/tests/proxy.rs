//! The proxy applies a fault at the given byte of a connection, and nothing else.

use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use conformance_tests::proxy::{Direction, Fault, Proxy};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// Long enough to conclude that no data arrives.
const A_WHILE: Duration = Duration::from_millis(100);
const HELLO: &[u8] = b"hello, server";

/// A proxy in front of an echo server.
async fn echo() -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = connection.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    Proxy::start(address).await.unwrap()
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

/// Sends `HELLO` and reads the echo. Returns the received bytes, and the error if the connection ended.
async fn hello(connection: &mut TcpStream) -> (Vec<u8>, Option<ErrorKind>) {
    // The connection may have ended already, which the read reports.
    let _ = connection.write_all(HELLO).await;
    let mut heard = Vec::new();
    while heard.len() < HELLO.len() {
        match connection.read_buf(&mut heard).await {
            Ok(0) => return (heard, Some(ErrorKind::UnexpectedEof)),
            Ok(_) => {}
            Err(error) => return (heard, Some(error.kind())),
        }
    }
    (heard, None)
}

async fn is_well(connection: &mut TcpStream) -> bool {
    hello(connection).await == (HELLO.to_vec(), None)
}

#[tokio::test]
async fn a_healthy_proxy_forwards_all_bytes_and_the_end() {
    let proxy = echo().await;
    let sent: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let (mut from, mut to) = connect(&proxy).await.into_split();
    let expected = sent.clone();
    let mut heard = Vec::new();
    let sending = tokio::spawn(async move {
        to.write_all(&sent).await.unwrap();
        to.shutdown().await.unwrap();
    });
    from.read_to_end(&mut heard).await.unwrap();
    sending.await.unwrap();
    assert!(heard == expected);
    assert_eq!(proxy.bytes(Direction::Requests), 4_000_000);
    assert_eq!(proxy.bytes(Direction::Answers), 4_000_000);
    assert_eq!((proxy.connections(), proxy.failures()), (1, 0));
}

#[tokio::test]
async fn it_ends_a_connection_at_any_byte_of_either_direction() {
    let proxy = echo().await;
    let kinds = [(Fault::cut as fn(_) -> _, ErrorKind::UnexpectedEof), (Fault::reset, ErrorKind::ConnectionReset)];
    for (fault, expected) in kinds {
        for after in 0..HELLO.len() {
            let mut connection = connect(&proxy).await;
            assert!(is_well(&mut connection).await);
            proxy.fail(fault(Direction::Answers).after(after as u64));
            assert_eq!(hello(&mut connection).await, (HELLO[..after].to_vec(), Some(expected)), "{after}");
            // The fault persists until it is healed, for new connections too.
            assert_eq!(hello(&mut connect(&proxy).await).await, (vec![], Some(expected)), "{after}");
            assert_eq!(proxy.failures(), 2);
            proxy.heal();

            let mut connection = connect(&proxy).await;
            assert!(is_well(&mut connection).await);
            let passed = proxy.bytes(Direction::Requests);
            proxy.fail(fault(Direction::Requests).after(after as u64).once());
            assert_eq!(hello(&mut connection).await.1, Some(expected), "{after}");
            assert_eq!(proxy.bytes(Direction::Requests), passed + after as u64);
            // The fault occurred once and is over.
            assert!(is_well(&mut connect(&proxy).await).await);
            assert_eq!(proxy.failures(), 1);
        }
    }
}

#[tokio::test]
async fn the_bytes_of_all_connections_count() {
    let proxy = echo().await;
    let mut one = connect(&proxy).await;
    let mut other = connect(&proxy).await;
    proxy.fail(Fault::cut(Direction::Answers).after(HELLO.len() as u64).once());
    assert!(is_well(&mut one).await);
    assert_eq!(hello(&mut other).await, (vec![], Some(ErrorKind::UnexpectedEof)));
    assert!(is_well(&mut one).await);
}

#[tokio::test]
async fn a_silenced_connection_stays_open_and_silent() {
    let proxy = echo().await;
    for direction in [Direction::Requests, Direction::Answers] {
        let mut connection = connect(&proxy).await;
        assert!(is_well(&mut connection).await);
        proxy.fail(Fault::silence(direction).after(5));
        connection.write_all(HELLO).await.unwrap();
        let mut heard = [0; 5];
        connection.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, HELLO[..5]);
        assert!(timeout(A_WHILE, connection.read_u8()).await.is_err());
        assert!(timeout(A_WHILE, hello(&mut connect(&proxy).await)).await.is_err());
        proxy.heal();
        assert!(is_well(&mut connect(&proxy).await).await);
        assert!(timeout(A_WHILE, hello(&mut connection)).await.is_err());
    }
}

#[tokio::test]
async fn delayed_bytes_arrive_later_and_complete() {
    let proxy = echo().await;
    let mut connection = connect(&proxy).await;
    assert!(is_well(&mut connection).await);
    proxy.fail(Fault::delay(Direction::Answers, A_WHILE).after(5));
    let start = Instant::now();
    assert!(is_well(&mut connection).await);
    assert!(start.elapsed() >= A_WHILE);
    assert_eq!(proxy.failures(), 1);
}

#[tokio::test]
async fn connections_at_rest_can_be_reset_and_end_with_the_proxy() {
    let proxy = echo().await;
    let mut connection = connect(&proxy).await;
    assert!(is_well(&mut connection).await);
    proxy.reset_all();
    assert_eq!(connection.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let mut connection = connect(&proxy).await;
    assert!(is_well(&mut connection).await);
    drop(proxy);
    assert!(hello(&mut connection).await.1.is_some());
}

#[tokio::test]
async fn without_a_server_a_connection_is_reset() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let proxy = Proxy::start(address).await.unwrap();
    assert_eq!(hello(&mut connect(&proxy).await).await, (vec![], Some(ErrorKind::ConnectionReset)));
}
