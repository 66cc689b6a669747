import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;

// Sends every line back; "wait NAME" says that it has begun in NAME.begun and answers when NAME exists.
public class AcceptLoop {
  public static void main(String[] arguments) throws IOException {
    int port = Integer.parseInt(arguments[0]);
    try (ServerSocket listener = new ServerSocket(port, 128, InetAddress.getByName("127.0.0.1"))) {
      while (true) {
        Socket connection = listener.accept();
        new Thread(() -> serve(connection)).start();
      }
    }
  }

  private static void serve(Socket socket) {
    try (Socket connection = socket) {
      var lines = new BufferedReader(new InputStreamReader(connection.getInputStream()));
      for (String line = lines.readLine(); line != null; line = lines.readLine()) {
        String answer = line.startsWith("wait ") ? waitFor(Path.of(line.substring(5))) : line;
        connection.getOutputStream().write((answer + "\n").getBytes());
      }
    } catch (IOException | InterruptedException gone) {
      // The client has left.
    }
  }

  private static String waitFor(Path gate) throws IOException, InterruptedException {
    Files.createFile(Path.of(gate + ".begun"));
    while (!Files.exists(gate)) {
      Thread.sleep(5);
    }
    return "waited";
  }
}
