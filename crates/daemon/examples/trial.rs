//! trial
use pleach_daemon::node::Node;
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    pleach_daemon::log::init(Some("pleach_daemon=debug,pleach_core=debug")).ok();
    let args: Vec<String> = std::env::args().collect();
    let dir = std::path::Path::new(&args[2]);
    match args[1].as_str() {
        "init" => println!("{:?}", pleach_daemon::store::init(dir, &args[3])),
        "join" => println!("{:?}", pleach_daemon::store::join(dir, &args[3], &args[4]).await),
        "run" => {
            let node = Node::builder(dir).listen(vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()]).discovery(pleach_daemon::net::Discovery::Off).start().await.unwrap();
            tokio::signal::ctrl_c().await.unwrap();
            node.stop().await;
        }
        _ => panic!(),
    }
}
