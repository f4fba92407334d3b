use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::sync::{broadcast, mpsc};
use tokio::task::spawn_blocking;

use super::*;

struct Daemon {
    _dir: TempDir,
    root: PathBuf,
    events: broadcast::Sender<EventReport>,
}

/// A daemon that knows one conflict-free answer for each request, in a root of the given depth.
fn daemon(depth: usize) -> Daemon {
    let dir = TempDir::new().unwrap();
    let mut root = dir.path().to_owned();
    for _ in 0..depth {
        root.push("a-directory-with-a-long-name");
    }
    std::fs::create_dir_all(root.join(".pleach")).unwrap();
    let listener = bind(&root).unwrap();
    let (calls, mut driver) = mpsc::channel::<Call>(8);
    let (events, _) = broadcast::channel(4);
    tokio::spawn(serve(listener, calls, events.clone()));
    tokio::spawn(async move {
        while let Some(Call { request, reply }) = driver.recv().await {
            let answer = match request {
                Request::Wait { timeout_ms: 0 } => {
                    // Never answers: only the client's going ends it.
                    tokio::spawn(async move {
                        let mut reply = reply;
                        reply.closed().await;
                    });
                    continue;
                }
                Request::Wait { .. } => {
                    Ok(Reply::Wait(WaitReport { converged: true, waiting_for: vec![] }))
                }
                Request::Resolve { path, choice, .. } => {
                    assert_eq!(choice, Pick::Ours);
                    let refusal = Refusal::new(RefusalKind::NotFound, "no conflict there");
                    Err(refusal.at(path))
                }
                Request::Stop => return,
                _ => Ok(Reply::Done),
            };
            let _ = reply.send(answer);
        }
    });
    Daemon { _dir: dir, root, events }
}

async fn ask(root: &Path, request: Request) -> Result<Reply, ClientError> {
    let root = root.to_owned();
    spawn_blocking(move || Client::connect(&root)?.call(request)).await.unwrap()
}

/// What a daemon answers to a raw line.
async fn ask_raw(root: &Path, line: &'static [u8]) -> String {
    let socket = socket_path(root);
    spawn_blocking(move || {
        let mut stream = UnixStream::connect(socket).unwrap();
        let _ = stream.write_all(line);
        let mut answer = String::new();
        let _ = BufReader::new(stream).read_line(&mut answer);
        answer
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn requests_are_answered_one_after_the_other() {
    let daemon = daemon(0);
    let root = daemon.root.clone();
    spawn_blocking(move || {
        let mut client = Client::connect(&root).unwrap();
        let wait = client.call(Request::Wait { timeout_ms: 10 }).unwrap();
        assert_eq!(wait, Reply::Wait(WaitReport { converged: true, waiting_for: vec![] }));
        assert_eq!(client.call(Request::Status).unwrap(), Reply::Done);
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn refusal_carries_kind_message_and_path() {
    let daemon = daemon(0);
    let path: PathText = "a\\nb/\\xff".parse().unwrap();
    let (path_asked, choice) = (path.clone(), Pick::Ours);
    let request = Request::Resolve { path: path_asked, choice, expect: None, dry_run: false };
    let Err(ClientError::Refused(refusal)) = ask(&daemon.root, request).await else {
        panic!("not refused");
    };
    assert_eq!(refusal, Refusal::new(RefusalKind::NotFound, "no conflict there").at(path));
}

#[tokio::test]
async fn socket_of_a_root_with_a_path_beyond_108_bytes_is_reached() {
    let daemon = daemon(6);
    assert!(daemon.root.as_os_str().len() > 108);
    assert_eq!(ask(&daemon.root, Request::Status).await.unwrap(), Reply::Done);
}

#[tokio::test]
async fn absent_daemon_is_told_from_a_broken_one() {
    let daemon = daemon(0);
    ask(&daemon.root, Request::Stop).await.unwrap_err();
    // The driver is gone, and with it the listener: the socket file stays, as after kill -9.
    let absent = loop {
        match ask(&daemon.root, Request::Status).await {
            Err(ClientError::Refused(Refusal { kind: RefusalKind::Stopping, .. })) => (),
            Err(ClientError::Gone) => (),
            other => break other,
        }
    };
    assert!(matches!(absent, Err(ClientError::NoDaemon)), "{absent:?}");
    assert!(socket_path(&daemon.root).exists());
    let nowhere = ask(Path::new("/nonexistent"), Request::Status).await;
    assert!(matches!(nowhere, Err(ClientError::NoDaemon)), "{nowhere:?}");
    bind(&daemon.root).expect("a socket left behind is replaced");
}

#[tokio::test]
async fn lines_that_are_no_requests_are_refused_with_a_reason() {
    let daemon = daemon(0);
    for (line, kind) in [
        (&b"{\n"[..], "malformed"),
        (b"[]\n", "malformed"),
        (b"\xff\xfe\n", "malformed"),
        (b"{\"version\":1,\"request\":\"fly\"}\n", "malformed"),
        (b"{\"version\":99,\"request\":\"unheard_of\"}\n", "version"),
    ] {
        let answer = ask_raw(&daemon.root, line).await;
        assert!(answer.contains(&format!("\"kind\":\"{kind}\"")), "{line:?}: {answer}");
    }
    let endless = vec![b'x'; REQUEST_BYTES_MAX + 2].leak();
    assert_eq!(ask_raw(&daemon.root, endless).await, "");
    assert_eq!(ask(&daemon.root, Request::Status).await.unwrap(), Reply::Done);
}

#[tokio::test]
async fn events_stream_and_say_when_some_were_missed() {
    let daemon = daemon(0);
    let (root, sender) = (daemon.root.clone(), daemon.events.clone());
    spawn_blocking(move || {
        let event = |changes| EventReport {
            time_ms: 5,
            body: EventBody::LocalChange { paths: vec!["a/b".parse().unwrap()], acts: changes },
        };
        let mut events = Client::connect(&root).unwrap().events().unwrap();
        sender.send(event(1)).unwrap();
        assert_eq!(events.next().unwrap().unwrap(), event(1));
        // Nobody reads: the socket's buffer fills, then the channel of four overflows.
        for n in 0..200_000 {
            sender.send(event(n)).unwrap();
        }
        sender.send(event(u64::MAX)).unwrap();
        let missed = events
            .map(Result::unwrap)
            .take_while(|e| *e != event(u64::MAX))
            .any(|e| matches!(e.body, EventBody::Missed { .. }));
        assert!(missed);
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn client_that_goes_while_it_waits_frees_its_place() {
    let daemon = daemon(0);
    for _ in 0..3 {
        let mut waiting = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            let mut stream = UnixStream::connect(socket_path(&daemon.root)).unwrap();
            stream.write_all(b"{\"version\":1,\"request\":\"wait\",\"timeout_ms\":0}\n").unwrap();
            waiting.push(stream);
        }
        let crowded = loop {
            match ask(&daemon.root, Request::Status).await {
                Err(ClientError::Refused(refusal)) => break refusal,
                Ok(_) => (),
                Err(other) => panic!("{other}"),
            }
        };
        assert_eq!(crowded.kind, RefusalKind::Busy);
        drop(waiting);
        while ask(&daemon.root, Request::Status).await.is_err() {}
    }
}

#[test]
fn requests_and_replies_have_the_shape_that_programs_rely_on() {
    let line = serde_json::to_string(&Envelope {
        version: 1,
        request: Request::Resolve {
            path: "a/b".parse().unwrap(),
            choice: Pick::Version("1f".to_owned()),
            expect: None,
            dry_run: false,
        },
    })
    .unwrap();
    assert_eq!(line, r#"{"version":1,"request":"resolve","path":"a/b","choice":{"version":"1f"}}"#);
    for request in [
        Request::ConflictsAt { path: "a".parse().unwrap() },
        Request::Content { path: "a".parse().unwrap(), id: "1f".to_owned() },
        Request::Resolve {
            path: "a".parse().unwrap(),
            choice: Pick::Both,
            expect: Some(vec!["1f".to_owned()]),
            dry_run: true,
        },
    ] {
        let envelope = Envelope { version: 1, request };
        let line = serde_json::to_string(&envelope).unwrap();
        assert_eq!(serde_json::from_str::<Envelope>(&line).unwrap(), envelope, "{line}");
    }
    let reply = Reply::Error(Refusal::new(RefusalKind::Frozen, "why"));
    assert_eq!(
        serde_json::to_string(&reply).unwrap(),
        r#"{"error":{"kind":"frozen","message":"why"}}"#
    );
    let event = EventReport { time_ms: 1, body: EventBody::Applied { path: "a".parse().unwrap() } };
    assert_eq!(
        serde_json::to_string(&Reply::Event(event)).unwrap(),
        r#"{"event":{"time_ms":1,"event":"applied","path":"a"}}"#
    );
}
