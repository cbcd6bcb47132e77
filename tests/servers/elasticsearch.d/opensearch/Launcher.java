import java.nio.file.Path;
import java.util.Arrays;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CountDownLatch;
import java.util.stream.Collectors;
import org.opensearch.common.logging.LogConfigurator;
import org.opensearch.common.settings.Settings;
import org.opensearch.env.Environment;
import org.opensearch.node.InternalSettingsPreparer;
import org.opensearch.node.Node;

/**
 * Starts an OpenSearch node from its libraries, as the distribution's own start class would, less its checks of the machine.
 * Arguments: its home, its folder of settings, and further settings as NAME=VALUE, which count before those of the folder.
 */
public final class Launcher {
    public static void main(String[] arguments) throws Exception {
        LogConfigurator.registerErrorListener();
        Settings home = Settings.builder().put("path.home", arguments[0]).build();
        Path config = Path.of(arguments[1]);
        Map<String, String> given = Arrays.stream(arguments).skip(2).map(argument -> argument.split("=", 2))
            .collect(Collectors.toMap(setting -> setting[0], setting -> setting[1], (earlier, later) -> later));
        String name = Optional.ofNullable(System.getenv("HOSTNAME")).orElse("test");
        Environment environment = InternalSettingsPreparer.prepareEnvironment(home, given, config, () -> name);
        LogConfigurator.configure(environment);
        Node node = new Node(environment);
        CountDownLatch end = new CountDownLatch(1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try (node) {
                end.countDown();
            } catch (Exception closing) {
                closing.printStackTrace();
            }
        }));
        node.start();
        end.await();
    }
}
