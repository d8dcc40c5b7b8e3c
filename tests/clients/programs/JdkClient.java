// The JDK's HTTP client, which offers an upgrade to HTTP/2 with its first request.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

public class JdkClient {
    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        String body = "{\"model\": \"gpt-image-1\", \"prompt\": \"a shape\", \"n\": 1, \"size\": \"1024x1024\"}";
        HttpRequest request = HttpRequest.newBuilder(URI.create(System.getenv("SERVICE_URL") + "/v1/images/generations"))
            .header("content-type", "application/json")
            .header("authorization", "Bearer " + System.getenv("SERVICE_KEY"))
            .POST(HttpRequest.BodyPublishers.ofString(body))
            .build();
        for (String name : new String[] {"POST, upgrade offered", "POST again on the connection"}) {
            HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            boolean passed = answer.statusCode() == 200 && answer.body().contains("\"b64_json\"");
            String said = answer.statusCode() + " over " + answer.version();
            System.out.printf("{\"request\": \"%s\", \"result\": \"%s\", \"passed\": %b}%n", name, said, passed);
        }
    }
}
