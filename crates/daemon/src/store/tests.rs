use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;

fn scratch() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().canonicalize().unwrap();
    (dir, path)
}

#[test]
fn initialised_directory_is_opened_with_what_was_said() {
    let (_dir, path) = scratch();
    std::fs::write(path.join("file"), "kept").unwrap();
    let made = init(&path, "web1").unwrap();
    assert_eq!(made.root, path);
    assert_eq!(made.store, path.file_name().unwrap().to_str().unwrap());
    let mode = path.join(".pleach").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);

    let store = open(&path).unwrap();
    assert_eq!(store.master_name, "web1");
    assert_eq!(store.store_name, made.store);
    assert_eq!(store.seed.store().to_string(), made.store_id);
    assert_eq!(store.seed.founder, store.key.master());
    assert_eq!(store.introduction, vec![]);
    assert_eq!(store.config, Config::default());
    assert!(matches!(open(&path), Err(StoreError::Running { .. })));
    drop(store);
    open(&path).unwrap();
    assert_eq!(std::fs::read(path.join("file")).unwrap(), b"kept");
    assert_eq!(find(&path.join("some/where/below")), Some(path));
}

#[test]
fn directory_that_cannot_be_a_store_is_refused_and_left_as_it_was() {
    let (_dir, top) = scratch();
    let at = |name: &str| top.join(name);
    std::fs::write(at("file"), "").unwrap();
    std::fs::create_dir_all(at("store/sub/deep")).unwrap();
    std::fs::create_dir_all(at("around/a/b/inner")).unwrap();
    init(&at("store"), "m").unwrap();
    init(&at("around/a/b/inner"), "m").unwrap();
    let refusal = |path: PathBuf| init(&path, "m").unwrap_err();
    assert!(matches!(refusal(at("missing")), StoreError::NoDirectory { .. }));
    assert!(matches!(refusal(at("file")), StoreError::NotADirectory { .. }));
    assert!(matches!(refusal(at("file/x")), StoreError::NotADirectory { .. }));
    assert!(matches!(refusal(at("store")), StoreError::AlreadyAStore { .. }));
    assert!(matches!(refusal(at("store/sub/deep")), StoreError::Inside { .. }));
    assert!(matches!(refusal(at("store/.pleach/versions")), StoreError::Inside { .. }));
    assert!(matches!(refusal(at("around")), StoreError::Around { .. }));
    assert!(!at("around/.pleach").exists() && !at("store/sub/deep/.pleach").exists());
    assert!(matches!(open(&at("around")), Err(StoreError::NotAStore { .. })));
    for name in ["", "a\nb", &"x".repeat(65)] {
        assert!(matches!(init(&at("around"), name), Err(StoreError::Name { .. })));
    }
}

#[test]
fn interrupted_making_is_completed_with_the_same_key() {
    let (_dir, path) = scratch();
    let master = init(&path, "m").unwrap().master_id;
    std::fs::remove_file(state_path(&path)).unwrap();
    assert!(matches!(open(&path), Err(StoreError::Unfinished { .. })));
    init(&path, "m").unwrap();
    assert_eq!(open(&path).unwrap().key.master().to_string(), master);
}

#[test]
fn state_that_was_lost_after_a_run_is_no_interrupted_making() {
    let (_dir, path) = scratch();
    init(&path, "m").unwrap();
    drop(open(&path).unwrap());
    std::fs::remove_file(state_path(&path)).unwrap();
    for refused in [open(&path).map(drop), init(&path, "m").map(drop), root_at(&path).map(drop)] {
        assert!(matches!(refused, Err(StoreError::StateLost { .. })), "{refused:?}");
    }
}

#[test]
fn state_and_key_of_two_stores_are_told_apart() {
    let (_dir, top) = scratch();
    for name in ["a", "b"] {
        std::fs::create_dir(top.join(name)).unwrap();
        init(&top.join(name), name).unwrap();
    }
    let file = |store: &str, name: &str| top.join(store).join(".pleach").join(name);
    std::fs::copy(file("a", "state.db"), file("b", "state.db")).unwrap();
    assert!(matches!(open(&top.join("b")), Err(StoreError::Mixed { .. })));
    std::fs::copy(file("b", "key"), file("a", "key")).unwrap();
    assert!(matches!(open(&top.join("a")), Err(StoreError::Mixed { .. })));
}

#[tokio::test]
async fn broken_ticket_is_refused_before_anything_is_made() {
    let (_dir, path) = scratch();
    for ticket in ["", "nonsense", "pleach1", "pleach1aaaaaaaaaaaaaaaaaaaaaa"] {
        let refused = join(&path, ticket, "m", |_| ()).await.unwrap_err();
        assert!(matches!(refused, StoreError::Ticket(_)), "{refused}");
        assert!(refused.is_usage());
    }
    assert!(!path.join(".pleach").exists());
}

#[test]
fn wrong_settings_keep_a_store_from_opening() {
    let (_dir, path) = scratch();
    init(&path, "m").unwrap();
    std::fs::write(crate::config::config_path(&path), "lisen = []\n").unwrap();
    assert!(matches!(open(&path), Err(StoreError::Config(_))));
}
