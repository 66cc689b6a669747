import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.Executors;

// Answers at once; /wait?NAME says that it has begun in NAME.begun and answers when NAME exists.
public class Pages {
  public static void main(String[] arguments) throws IOException {
    var address = new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0]));
    HttpServer server = HttpServer.create(address, 128);
    server.setExecutor(Executors.newCachedThreadPool());
    server.createContext("/", exchange -> answer(exchange, "hello\n"));
    server.createContext("/wait", exchange -> {
      waitFor(Path.of(exchange.getRequestURI().getQuery()));
      answer(exchange, "waited\n");
    });
    server.start();
  }

  private static void answer(HttpExchange exchange, String text) throws IOException {
    exchange.sendResponseHeaders(200, text.length());
    exchange.getResponseBody().write(text.getBytes());
    exchange.close();
  }

  private static void waitFor(Path gate) throws IOException {
    Files.createFile(Path.of(gate + ".begun"));
    try {
      while (!Files.exists(gate)) {
        Thread.sleep(5);
      }
    } catch (InterruptedException stopped) {
      Thread.currentThread().interrupt();
    }
  }
}
