import java.nio.file.Path;
import java.util.Arrays;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CountDownLatch;
import java.util.stream.Collectors;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.node.InternalSettingsPreparer;
import org.elasticsearch.node.Node;

/**
 * Starts an Elasticsearch node from its libraries, as the distribution's own start class would, less the parts that are not published.
 * Arguments: its home, its folder of settings, and further settings as NAME=VALUE, which count before those of the folder.
 */
public final class Launcher {
    public static void main(String[] arguments) throws Exception {
        LogConfigurator.configureESLogging();
        // Its initializer names its subclasses, and theirs need it first: two threads that meet the first errors of a new node, one in
        // the class and one in a subclass, would wait for each other forever, and with them the master service.
        Class.forName("org.elasticsearch.ElasticsearchException");
        Settings home = Settings.builder().put("path.home", arguments[0]).build();
        Path config = Path.of(arguments[1]);
        Map<String, String> given = Arrays.stream(arguments).skip(2).map(argument -> argument.split("=", 2))
            .collect(Collectors.toMap(setting -> setting[0], setting -> setting[1], (earlier, later) -> later));
        String name = Optional.ofNullable(System.getenv("HOSTNAME")).orElse("test");
        Environment environment = withoutAbsentParts(InternalSettingsPreparer.prepareEnvironment(home, given, config, () -> name));
        LogConfigurator.configure(environment, true);
        Node node = new Node(environment, Plugins.of(environment));
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

    /** What switches off a part that is not published, such as {@code xpack.security.enabled=false}, is no unknown setting: it is off. */
    private static Environment withoutAbsentParts(Environment environment) {
        Settings settings = environment.settings();
        Settings known = settings.filter(key -> !key.startsWith("xpack.") || !"false".equals(settings.get(key)));
        return new Environment(known, environment.configDir());
    }
}
